package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

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
	process.Sparing(lookup)
	log, err := process.Logger(cfg.LogLevel)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	box, err := seal.New(cfg.SecretKey)
	if err != nil {
		return err
	}
	modules, err := filters.Files()
	if err != nil {
		return err
	}
	if cfg.HasClusterKey {
		log.Warn("CLUSTER_API_KEY opens nothing here: a gateway's keys are its api_keys; the api makes it a key of the gateway default on its first start")
	}
	var keep *keeper
	f := fleet.New(fleet.Options{
		ID: cfg.ID, Open: cfg.Dev,
		Unseal: func(r resource.Ref, field, sealed string) (string, error) {
			return box.Open(sealed, r.Kind, r.Name, field)
		},
		Module: func(filter string) string { return filepath.Join(cfg.WasmDir, modules[filter]) },
		ADS:    ads.Options{Linger: cfg.Linger}, Log: log,
		Resolver: resolver.Options{Lookup: resolver.System(cfg.DNSServers...), Moved: func() { keep.saveNames() }},
	})
	if keep, err = openKeeper(cfg, f, log); err != nil {
		return err
	}
	nc, err := nats.Connect(cfg.NatsURL, nats.Name("marchproxy-xds "+cfg.ID), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond), nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond), nats.PingInterval(5*time.Second), nats.MaxPingsOutstanding(2))
	if err != nil {
		return fmt.Errorf("NATS_URL: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	grpcLis, err := process.Listen(ctx, cfg.GRPCAddr, "XDS_GRPC_ADDR")
	if err != nil {
		return err
	}
	httpLis, err := process.Listen(ctx, cfg.HTTPAddr, "XDS_HTTP_ADDR")
	if err != nil {
		return err
	}
	g, err := grpcServer(cfg)
	if err != nil {
		return err
	}
	ads.NewServer(f).Register(g)

	var group process.Group
	group.Add("replay", func(ctx context.Context) error {
		return stream.Replay(ctx, js, keep.begin())
	})
	group.Add("resolver", f.Run)
	group.Add("status", func(ctx context.Context) error {
		last := lastReport(ctx, js, cfg.ID)
		if last != nil {
			f.Remember(last)
		}
		return status.ReportXds(ctx, nc, f.Changed(), f.Reporter(last, fleet.ReportOptions{Unsaved: keep.Unsaved, Behind: keep.Behind}))
	})
	group.Add("names", func(ctx context.Context) error { return status.Report(ctx, nc, f.Troubled(), f.Names) })
	group.Add("peers", func(ctx context.Context) error { return status.WatchXds(ctx, nc, js, f.Peers()) })
	group.Add("places", func(ctx context.Context) error { return f.Age(ctx, func() bool { return !nc.IsConnected() }) })
	group.Add("verdicts", keep.judge)
	group.Add("grpc", func(ctx context.Context) error { return serveGRPC(ctx, g, grpcLis, f) })
	group.Add("http", func(ctx context.Context) error {
		return serveHTTP(ctx, httpLis, routes(facade.New(client{nc}, view{f}, keep, log), f, keep))
	})
	log.Info("serving", zap.String("grpc", grpcLis.Addr().String()), zap.String("http", httpLis.Addr().String()), zap.String("id", cfg.ID))
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

func grpcServer(cfg Config) (*grpc.Server, error) {
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(64 << 20), grpc.MaxSendMsgSize(256 << 20), grpc.MaxConcurrentStreams(1000),
		// Thousands of connections are idle nearly always: each keeps a small buffer to read.
		grpc.ReadBufferSize(4 << 10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if cfg.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("XDS_TLS_CERT and XDS_TLS_KEY: %w", err)
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})))
	}
	return grpc.NewServer(opts...), nil
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

func serveHTTP(ctx context.Context, lis net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	go func() {
		<-ctx.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(limit) // what is still open after that is cut off
	}()
	if err := s.Serve(lis); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func routes(door http.Handler, f *fleet.Fleet, keep *keeper) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry(f, keep), promhttp.HandlerOpts{}))
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
	mux.HandleFunc("GET /v1/resources", func(w http.ResponseWriter, r *http.Request) { dump(w, r, f) })
	mux.Handle("/", door)
	return mux
}
