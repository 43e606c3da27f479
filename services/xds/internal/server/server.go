package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/marchproxy/marchproxy/pkg/bus"
	"github.com/marchproxy/marchproxy/pkg/guard"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
	"github.com/marchproxy/marchproxy/services/xds/internal/facade"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
	filters "github.com/marchproxy/marchproxy/wasm-filters"
)

// Run serves until the context ends.
func Run(ctx context.Context, lookup func(string) (string, bool)) error {
	cfg, err := readConfig(lookup)
	if err != nil {
		return err
	}
	log, err := process.Logger(cfg.LogLevel)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	stop, err := cfg.Tracing.Start(ctx, "marchproxy-xds", cfg.ID, log)
	if err != nil {
		return err
	}
	defer stop()
	box, err := seal.New(cfg.SecretKey)
	if err != nil {
		return err
	}
	modules, err := filters.Files()
	if err != nil {
		return err
	}
	if cfg.HasClusterKey {
		log.Warn("CLUSTER_API_KEY opens nothing here: a gateway's keys are its api_keys; the api makes it a key of the " +
			"gateway default on its first start")
	}
	// Envoys that come while the last state is read wait in the kernel's queue, those with TLS for their connect_timeout
	// of a second at a time. Each that was refused would let up to two seconds pass before it tries again. The HTTP port
	// is opened when it can answer: its callers ask again soon.
	grpcLis, err := process.Listen(ctx, cfg.GRPCAddr, "XDS_GRPC_ADDR")
	if err != nil {
		return err
	}
	defer func() { _ = grpcLis.Close() }() // where it was served it is closed already
	var keep *keeper
	f := fleet.New(fleet.Options{
		ID: cfg.ID, Open: cfg.Dev,
		Unseal: func(r resource.Ref, field, sealed string) (string, error) {
			return box.Open(sealed, r.Kind, r.Name, field)
		},
		Module: func(filter string) string { return filepath.Join(cfg.WasmDir, modules[filter]) },
		ADS:    ads.Options{Linger: cfg.Linger}, Log: log, Reordered: func() { keep.saveLatencies() },
		Resolver: resolver.Options{
			Lookup: resolver.System(cfg.DNSServers...), Allowed: cfg.Allowed,
			Moved: func() { keep.saveNames() },
		},
	})
	if keep, err = openKeeper(cfg, f, log); err != nil {
		return err
	}
	process.Sparing(lookup) // a start makes so much that collections this frequent would be a third of its work
	id, err := identity.Open(cfg.Identity.Files)
	if err != nil {
		return err
	}
	// Its own reports, one for each change, would come back to it, who hears those of the others.
	nc, err := bus.Connect(cfg.NatsURL, "marchproxy-xds "+cfg.ID, cfg.Identity, id, log, nats.NoEcho())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	httpLis, err := process.Listen(ctx, cfg.HTTPAddr, "XDS_HTTP_ADDR")
	if err != nil {
		return err
	}
	tried := guard.NewAttempts(log)
	grpcDoor, httpDoor := guard.Listen(grpcLis, unprovenGRPC), guard.Listen(httpLis, unprovenHTTP)
	grpcDoor.Patience = firstMessage
	g, door := grpcServer(id, &envoys{f, tried, grpcDoor.Proven}), ads.NewServer(f)
	if id.HasCert() && id.Trusts() {
		door.Check = id.Check
	}
	door.Register(g)

	var group process.Group
	group.Add("certificates", func(ctx context.Context) error {
		return id.Watch(ctx, log, func() { f.ReviewPeers(id.Check) })
	})
	group.Add("replay", func(ctx context.Context) error {
		return stream.Replay(ctx, js, keep.begin())
	})
	group.Add("resolver", f.Run)
	group.Add("status", func(ctx context.Context) error {
		last := lastReport(ctx, js, cfg.ID)
		if last != nil {
			f.Remember(last)
		}
		return status.ReportXds(ctx, nc, f.Changed(), f.Reporter(last, fleet.ReportOptions{
			Unsaved: keep.Unsaved, Behind: keep.Behind, Document: keep.Document,
		}))
	})
	group.Add("names", func(ctx context.Context) error { return status.Report(ctx, nc, f.Troubled(), f.Names) })
	group.Add("peers", func(ctx context.Context) error { return status.WatchXds(ctx, nc, js, listener{f.Peers(), keep}) })
	group.Add("agents", func(ctx context.Context) error { return status.Watch(ctx, nc, js, f.Measured) })
	group.Add("latencies", f.FollowLatencies)
	group.Add("seats", func(ctx context.Context) error { return f.Age(ctx, func() bool { return !nc.IsConnected() }) })
	group.Add("last state", keep.run)
	group.Add("grpc", func(ctx context.Context) error { return serveGRPC(ctx, g, identity.Lasting(grpcDoor, log), f) })
	group.Add("http", func(ctx context.Context) error {
		api := client{nc, box, tried, httpDoor.Proven}
		door := facade.AsUser(cfg.UserTokenFile, facade.New(api, view{f}, keep, log))
		return process.ServeHTTP(ctx, id.Wrap(httpDoor, true, log), routes(door, f, keep, registry(f, keep, tried, id, nc)),
			2*time.Minute, 5*time.Second)
	})
	log.Info("serving", zap.String("grpc", grpcLis.Addr().String()), zap.String("http", httpLis.Addr().String()),
		zap.String("id", cfg.ID))
	return errors.Join(group.Run(ctx), keep.Close())
}

// lastReport reads what this server reported before it was restarted, which its first report replaces; nil where nobody
// knows. A NATS that does not answer is not waited for.
func lastReport(ctx context.Context, js jetstream.JetStream, id string) *status.View {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	v, _ := status.LastXds(ctx, js, id)
	return v
}

// window is how much an Envoy may send before it is read, in bytes.
const window = 64 << 10

func grpcServer(id *identity.Identity, door *envoys) *grpc.Server {
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(64 << 20), grpc.MaxSendMsgSize(256 << 20), grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaders), grpc.ConnectionTimeout(firstMessage), grpc.StreamInterceptor(door.admit),
		// Thousands of connections are idle nearly always: each keeps a small buffer to read.
		grpc.ReadBufferSize(4 << 10),
		// The window is how much an Envoy may send before it is read, such as the list of what it has while it waits for its
		// turn. gRPC would measure a window by itself, at the price of a ping, its answer and a window update for each ACK.
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if id.HasCert() {
		opts = append(opts, grpc.Creds(ads.Credentials(id.Server(true, "h2"))))
	}
	return grpc.NewServer(opts...)
}

func serveGRPC(ctx context.Context, g *grpc.Server, lis net.Listener, f *fleet.Fleet) error {
	go func() {
		<-ctx.Done()
		f.Close()
		g.Stop()
	}()
	if err := g.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

func routes(door http.Handler, f *fleet.Fleet, keep *keeper, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 8}))
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if _, ready := f.Head(); !ready {
			why := "the configuration has not been read yet"
			if b := keep.Behind(); b != nil {
				why += fmt.Sprintf(": %s, %d of %d", b.What, b.Done, b.Total)
			}
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n")) // the client is gone: nobody is left to tell
	})
	// What is asked for is the whole configuration, and who asks need not say who they are.
	all := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { dump(w, r, f) })
	mux.Handle("GET /v1/resources", guard.AtATime(2, 0, all))
	mux.Handle("/", door)
	return mux
}
