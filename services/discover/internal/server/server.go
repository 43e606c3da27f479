package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"

	"github.com/marchproxy/marchproxy/services/discover/internal/consul"
	"github.com/marchproxy/marchproxy/services/discover/internal/docker"
	"github.com/marchproxy/marchproxy/services/discover/internal/nomad"
	"github.com/marchproxy/marchproxy/services/discover/internal/reconcile"
	"github.com/marchproxy/marchproxy/services/discover/internal/source"
	"github.com/marchproxy/marchproxy/services/discover/internal/srv"
)

// sourceState is how a source is.
type sourceState struct {
	// Up says whether it could be read last; Reason why not.
	Up     bool   `json:"up"`
	Reason string `json:"reason,omitempty"`
	// Since is when that began, and Workloads how many it has found.
	Since     time.Time `json:"since"`
	Workloads int       `json:"workloads"`
}

type discover struct {
	rec *reconcile.Reconciler
	mu  sync.Mutex
	by  map[string]sourceState
}

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
	untrace, err := cfg.Tracing.Start(ctx, "marchproxy-discover", cfg.Site, log)
	if err != nil {
		return err
	}
	defer untrace()
	lis, err := process.Listen(ctx, cfg.HTTPAddr, "DISCOVER_HTTP_ADDR")
	if err != nil {
		return err
	}
	id, err := identity.Open(cfg.Identity.Files)
	if err != nil {
		return err
	}
	if !identity.LoopbackAddr(cfg.HTTPAddr) {
		lis = id.Wrap(lis, true, log)
	}
	d := &discover{by: map[string]sourceState{}, rec: reconcile.New(newClient(cfg.API, cfg.Token, id), reconcile.Options{
		Naming: cfg.Naming, Remove: cfg.Remove, Again: 30 * time.Second, Look: 10 * time.Second, Parallel: 8, Log: log,
	})}
	var group process.Group
	for _, name := range cfg.Sources {
		s, err := newSource(name, cfg, log)
		if err != nil {
			return err
		}
		d.by[s.Name()] = sourceState{Reason: "it has not answered yet", Since: time.Now()}
		group.Add(s.Name(), func(ctx context.Context) error {
			return s.Run(ctx, func(all []source.Workload) { d.found(s.Name(), all) },
				func(err error) { d.health(s.Name(), err) })
		})
	}
	group.Add("reconciler", d.rec.Run)
	group.Add("certificates", func(ctx context.Context) error { return id.Watch(ctx, log, func() {}) })
	group.Add("http", func(ctx context.Context) error {
		return process.ServeHTTP(ctx, lis, d.door(), time.Minute, 2*time.Second)
	})
	log.Info("discovering", zap.String("site", cfg.Site), zap.String("owner", cfg.Owner),
		zap.Strings("sources", cfg.Sources), zap.String("http", lis.Addr().String()))
	return group.Run(ctx)
}

func newSource(name string, cfg Config, log *zap.Logger) (source.Source, error) {
	switch name {
	case "docker":
		return docker.New(docker.Options{Host: cfg.DockerHost, Address: cfg.Address, Log: log})
	case "nomad":
		return nomad.New(nomad.Options{Address: cfg.Nomad, Token: cfg.NomadToken, Namespace: cfg.NomadNamespace, Log: log}),
			nil
	case "consul":
		return consul.New(consul.Options{Address: cfg.Consul, Token: cfg.ConsulToken, Log: log}), nil
	case "dns":
		return srv.New(srv.Options{Names: cfg.SRV, Server: cfg.DNS, Log: log}), nil
	}
	return nil, fmt.Errorf("there is no source %q", name)
}

func (d *discover) found(name string, all []source.Workload) {
	d.mu.Lock()
	s := d.by[name]
	s.Workloads = len(all)
	d.by[name] = s
	d.mu.Unlock()
	d.rec.Found(name, all)
}

func (d *discover) health(name string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.by[name]
	if up := err == nil; up != s.Up {
		s.Up, s.Since = up, time.Now()
	}
	if s.Reason = ""; err != nil {
		s.Reason = err.Error()
	}
	d.by[name] = s
}

// state is GET /v1/state.
type state struct {
	Sources   map[string]sourceState `json:"sources"`
	Workloads int                    `json:"workloads"`
	Pending   int                    `json:"pending"`
	// Problems are what is not served as its labels say, by workload.
	Problems map[string][]string `json:"problems"`
}

func (d *discover) state() state {
	s := d.rec.Status()
	out := state{Sources: map[string]sourceState{}, Workloads: s.Workloads, Pending: s.Pending, Problems: s.Problems}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, x := range d.by {
		out.Sources[name] = x
	}
	return out
}

// notReady is why it does not do its work; nil where it does.
func (d *discover) notReady() error {
	if !d.rec.Status().Began {
		return errors.New("no source has found anything yet, or the api has not answered")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, s := range d.by {
		if !s.Up {
			return fmt.Errorf("%s: %s", name, s.Reason)
		}
	}
	return nil
}

// door tells how it is, and lets nobody change anything.
func (d *discover) door() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector{d})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := d.notReady(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("GET /v1/state", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.state()) // the client is gone: nobody is left to tell
	})
	return mux
}
