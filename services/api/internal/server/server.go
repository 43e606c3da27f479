// Package server puts the api's parts together.
package server

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/bus"
	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/clusterkey"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/endpoint"
	"github.com/marchproxy/marchproxy/pkg/filterconfig"
	"github.com/marchproxy/marchproxy/pkg/guard"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/rpc"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/tracing"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/issuance"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/provider"
	"github.com/marchproxy/marchproxy/services/api/internal/relay"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/tail"
	"github.com/marchproxy/marchproxy/services/api/internal/web"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// Config is everything that the environment says.
type Config struct {
	// DatabaseURL of PostgreSQL (DATABASE_URL).
	DatabaseURL string
	// NatsURL of NATS (NATS_URL).
	NatsURL string
	// SecretKey seals (SECRET_KEY).
	SecretKey string
	// Addr to listen on (API_ADDR; :8000).
	Addr string
	// UIAddr is one more address, of the web UI and so of the API, where no client certificate is asked for (API_UI_ADDR;
	// none).
	UIAddr string
	// ClusterKey becomes a key of the gateway default on the first boot (CLUSTER_API_KEY).
	ClusterKey string
	// LicenseKey is the key of the License default, and of others that bring none (LICENSE_KEY).
	LicenseKey string
	// DefaultPort of the gateway default on the first boot (MARCHPROXY_DEFAULT_PORT; 10000).
	DefaultPort int
	// CertificateWarning is how long before its end a certificate is warned of (API_CERTIFICATE_WARNING; 336h).
	CertificateWarning time.Duration
	// FirstToken is the token bootstrap, of the role admin, instead of one that is made and shown (API_FIRST_TOKEN).
	FirstToken string
	// Provider is where people sign in beside passwords (API_OIDC_ISSUER and others).
	Provider provider.Settings
	// Allowed are the addresses that services may have beside the ordinary ones (ALLOW_ENDPOINTS).
	Allowed endpoint.Allowed
	// AbsentProxies is how long an Envoy is shown that is not connected any more (API_ABSENT_PROXIES; 1h).
	AbsentProxies time.Duration
	// Keep is how much of the history is kept (API_KEEP_REVISIONS; 100000. API_KEEP_HISTORY; 8760h, a year.
	// API_KEEP_AUDIT; 26280h, three years.) 0 is without limit.
	Keep store.Keep
	// Identity is its certificate, whom it trusts, and its key at NATS.
	Identity identity.Settings
	// ClientCerts demands a certificate of who connects, where there are authorities (API_CLIENT_CERTS; true).
	ClientCerts bool
	// Tracing is what OpenTelemetry's variables say.
	Tracing tracing.Settings
	// LogLevel is LOGLEVEL.
	LogLevel string
}

func readConfig(lookup func(string) (string, bool)) (Config, error) {
	e := process.NewEnv(lookup)
	c := Config{
		DatabaseURL: databaseURL(e),
		NatsURL:     e.URL("NATS_URL", "set it to nats://host:4222"),
		SecretKey: e.Required("SECRET_KEY", "set it to at least 16 random characters, for instance from: "+
			"openssl rand -hex 32"),
		Addr:        e.Addr("API_ADDR", ":8000"),
		UIAddr:      e.Addr("API_UI_ADDR", ""),
		ClusterKey:  e.Secret("CLUSTER_API_KEY"),
		LicenseKey:  e.Secret("LICENSE_KEY"),
		DefaultPort: e.Int("MARCHPROXY_DEFAULT_PORT", 10000, 1, 65535),
		FirstToken:  e.Secret("API_FIRST_TOKEN"),

		CertificateWarning: e.Duration("API_CERTIFICATE_WARNING", certificate.Soon),
		AbsentProxies:      e.Duration("API_ABSENT_PROXIES", live.Remember),

		Keep: store.Keep{
			Revisions: int64(e.Int("API_KEEP_REVISIONS", 100_000, 0, math.MaxInt32)),
			Age:       e.Duration("API_KEEP_HISTORY", 365*24*time.Hour),
			Audit:     e.Duration("API_KEEP_AUDIT", 3*365*24*time.Hour),
		},

		Identity:    identity.Read(e),
		ClientCerts: e.Bool("API_CLIENT_CERTS", true),
		LogLevel:    e.String("LOGLEVEL", "info"),
	}
	c.Tracing = tracing.Read(e, c.Identity)
	c.Identity.Listener(e, "API_ADDR", c.Addr)
	if c.UIAddr != "" {
		c.Identity.Listener(e, "API_UI_ADDR", c.UIAddr)
	}
	c.Identity.NATS(e, "NATS_URL", c.NatsURL)
	switch host, plain := store.Unproven(c.DatabaseURL); {
	case host == "" || c.Identity.Plain:
	case plain:
		e.Fail("DATABASE_URL", "lets what is said to %s, on another machine, go unencrypted: add sslmode=verify-full and "+
			"sslrootcert, or set "+
			"ALLOW_PLAINTEXT=true where it may be read on the way", host)
	default:
		e.Fail("DATABASE_URL", "lets whoever answers as %s, on another machine, be the database: add sslmode=verify-full "+
			"and sslrootcert "+
			"(sslrootcert=system where a public authority has issued its certificate), or set ALLOW_PLAINTEXT=true "+
			"where nobody can "+
			"stand between", host)
	}
	if c.ClusterKey != "" {
		if err := clusterkey.Check(c.ClusterKey); err != nil {
			e.Fail("CLUSTER_API_KEY", "%s", err.Error())
		}
	}
	if n := len(c.FirstToken); n > 0 && n < 32 {
		e.Fail("API_FIRST_TOKEN", "has %d characters; it must have at least 32 random ones, for instance from: openssl "+
			"rand -hex 32", n)
	}
	c.Allowed = endpoint.Read(e)
	c.Provider = provider.Read(e)
	if c.LicenseKey != "" {
		if err := license.CheckKey(c.LicenseKey); err != nil {
			e.Fail("LICENSE_KEY", "%s", err.Error())
		}
	}
	return c, e.Err()
}

// unproven is how many connections there may be whose clients have not sent a token that is right: with the headers
// that each may send they take no more than 200 MB.
const unproven = 2048

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
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("the host's name: %w", err)
	}
	stop, err := cfg.Tracing.Start(ctx, "marchproxy-api", hostname, log)
	if err != nil {
		return err
	}
	defer stop()
	box, err := seal.New(cfg.SecretKey)
	if err != nil {
		return err
	}
	id, err := identity.Open(cfg.Identity.Files)
	if err != nil {
		return err
	}
	// The filters check what is written for them. They are compiled while the database is asked.
	prepared := make(chan error, 1)
	go func() { prepared <- filterconfig.Prepare() }()
	st, err := store.Open(ctx, cfg.DatabaseURL, box)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := adopt(ctx, st, log); err != nil {
		return err
	}
	nc, err := bus.Connect(cfg.NatsURL, "marchproxy-api", cfg.Identity, id, log)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	rel := relay.New(st, js, log)
	var committed web.Signal
	w, err := writer.New(ctx, st, box, cfg.LicenseKey, log, func(c store.Committed) {
		rel.Committed(c)
		committed.Raise()
	})
	if err != nil {
		return err
	}
	process.Sparing(lookup) // a start makes so much that collections this frequent would be a third of its work
	if err := <-prepared; err != nil {
		return fmt.Errorf("the filters that check policies and licenses: %w", err)
	}
	w.Allowed = cfg.Allowed
	if err := firstBoot(ctx, cfg, st, w); err != nil {
		return err
	}
	if err := licenseKey(ctx, cfg.LicenseKey, w); err != nil {
		return err
	}
	rel.Changed = committed.Raise
	lis, err := process.Listen(ctx, cfg.Addr, "API_ADDR")
	if err != nil {
		return err
	}
	guarded := guard.Listen(lis, unproven)
	proven := guarded.Proven
	var ui *guard.Listener
	if cfg.UIAddr != "" {
		lis, err := process.Listen(ctx, cfg.UIAddr, "API_UI_ADDR")
		if err != nil {
			return err
		}
		ui = guard.Listen(lis, unproven)
		proven = func(remote string) { guarded.Proven(remote); ui.Proven(remote) } // each knows its own
	}
	board := live.NewBoard(time.Now)
	var retained atomic.Int64
	board.Keep, board.History = cfg.AbsentProxies, w
	certificates := issuance.New(st, w, board, box, log)
	watched := tail.New(nc, uuid.NewString(), func() (n int) {
		for _, c := range board.Counts() {
			n += int(c.Proxies)
		}
		return n
	}, log)
	h, err := (&web.API{
		Store: st, Writer: w, Board: board, Auth: auth.New(st), Published: rel.Published,
		Unpublished: func() (string, time.Time) {
			t, bad := rel.Trouble()
			if !bad {
				return "", time.Time{}
			}
			return t.Reason, t.Since
		}, Progress: []func() []api.Progress{rel.Progress}, Committed: &committed, Log: log,
		CertificateWarning: cfg.CertificateWarning, Proven: proven, Retained: retained.Load, Expiry: id.Expiry,
		Tail: watched, Orders: certificates.Orders, Provider: provider.New(cfg.Provider, box),
	}).Handler()
	if err != nil {
		return err
	}
	var group process.Group
	group.Add("certificates", func(ctx context.Context) error { return id.Watch(ctx, log, func() {}) })
	group.Add("relay", rel.Run)
	group.Add("database", func(ctx context.Context) error {
		st.Watch(ctx, log, committed.Raise)
		return nil
	})
	group.Add("history", func(ctx context.Context) error {
		forget(ctx, st, cfg.Keep, rel.Published, &retained, log)
		return nil
	})
	group.Add("listen", func(ctx context.Context) error {
		st.Listen(ctx, func(revision int64, whole *store.Committed) {
			var err error
			switch {
			case whole != nil:
				rel.Committed(*whole)
				err = w.Hear(ctx, *whole)
			case revision == 0 || revision > w.Revision():
				rel.Wake()
				err = w.Look(ctx)
			default:
				rel.Wake()
			}
			if err != nil {
				log.Warn("the database cannot be read", zap.Error(err))
			}
			committed.Raise()
		})
		return nil
	})
	group.Add("issuance", certificates.Run)
	group.Add("status", func(ctx context.Context) error {
		return status.WatchXds(ctx, nc, js, served{board, rel})
	})
	group.Add("names", func(ctx context.Context) error { return status.Watch(ctx, nc, js, board.ReportNames) })
	group.Add("agents", func(ctx context.Context) error { return status.Watch(ctx, nc, js, board.ReportAgent) })
	group.Add("access log", watched.Run)
	group.Add("http", func(ctx context.Context) error {
		return process.ServeHTTP(ctx, id.Wrap(guarded, cfg.ClientCerts, log), h, 2*time.Minute, 5*time.Second)
	})
	if ui != nil {
		group.Add("ui", func(ctx context.Context) error {
			return process.ServeHTTP(ctx, id.Wrap(ui, false, log), h, 2*time.Minute, 5*time.Second)
		})
	}
	group.Add("rpc", func(ctx context.Context) error { return rpc.Serve(ctx, nc, box, web.RPC(h)) })
	log.Info("serving", zap.String("http", lis.Addr().String()))
	go resource.Compile()
	return group.Run(ctx)
}

// served hands the xDS servers' reports to the board, and to the relay what they serve.
type served struct {
	*live.Board
	rel *relay.Relay
}

// Report implements [status.Follower].
func (s served) Report(x status.XdsStatus, fresh bool) (missing bool) {
	missing = s.Board.Report(x, fresh)
	s.rel.Served(x.Epoch, x.Revision)
	return missing
}

func databaseURL(e *process.Env) string {
	return e.Required("DATABASE_URL", "set it to postgresql://user:password@host:5432/marchproxy")
}

// openStore opens the database that the environment names, of which no other setting is needed, and brings it to this
// version.
func openStore(ctx context.Context, lookup func(string) (string, bool)) (*store.Store, error) {
	e := process.NewEnv(lookup)
	url := databaseURL(e)
	if err := e.Err(); err != nil {
		return nil, err
	}
	return store.Open(ctx, url, nil)
}

// NewEpoch begins a new life of the database, as after a restore from a backup: consumers follow it then,
// whatever revision they have seen.
func NewEpoch(ctx context.Context, lookup func(string) (string, bool)) error {
	st, err := openStore(ctx, lookup)
	if err != nil {
		return err
	}
	defer st.Close()
	epoch, err := st.RenewEpoch(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("The database's epoch is %s from now on.\n", epoch)
	return nil
}

// OpenAPI prints the API's document: what clients are made from, without a server.
func OpenAPI(context.Context, func(string) (string, bool)) error {
	raw, err := web.Document()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(raw, '\n'))
	return err
}

// firstBoot makes what must always be there: the gateway default, and a way in.
func firstBoot(ctx context.Context, cfg Config, st *store.Store, w *writer.Writer) error {
	ref := resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}
	_, err := w.Write(ctx, writer.Meta{
		Who:     auth.System(),
		Message: "first boot",
	}, func(st *config.State) (writer.Plan, error) {
		if st.Get(ref) != nil {
			return writer.Plan{}, nil
		}
		g := &configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: uint32(cfg.DefaultPort)}}}
		if cfg.ClusterKey != "" {
			g.ApiKeys = []*configv1.ClusterApiKey{{Name: "bootstrap", Sha256: clusterkey.Sum(cfg.ClusterKey)}}
		}
		return writer.Plan{Upserts: []writer.Desired{{Ref: ref, Spec: g, Path: "$", SpecPath: "$"}}}, nil
	})
	if err != nil {
		return fmt.Errorf("first boot: %w", err)
	}
	if cfg.FirstToken != "" {
		return st.SetBootstrap(ctx, auth.Sum(cfg.FirstToken))
	}
	secret, sum := auth.NewSecret()
	fresh, err := st.Bootstrap(ctx, sum)
	if err != nil {
		return err
	}
	if fresh {
		fmt.Fprintf(os.Stderr, "\nThe first token (role admin), shown once and stored only as a hash:\n\n    %s\n\n", secret)
	}
	return nil
}
