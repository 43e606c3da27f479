package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/marchproxy/marchproxy/bpf"
	"github.com/marchproxy/marchproxy/pkg/accesslog"
	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/bus"
	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/agent/internal/enforce"
	"github.com/marchproxy/marchproxy/services/agent/internal/envoy"
	"github.com/marchproxy/marchproxy/services/agent/internal/privilege"
)

// agent is the parts; each is nil where the environment does not ask for it.
type agent struct {
	cfg      Config
	log      *zap.Logger
	enforcer *enforce.Enforcer
	envoy    *envoy.Supervisor
	observer *envoyadmin.Observer // of envoy
	// envoyDoor is where what Envoy's admin interface tells is served; nil where its port was taken.
	envoyDoor net.Listener
	// behind is how far the replay is that takes long; nil where it does not.
	behind atomic.Pointer[stream.Progress]
	// mismatch is true while the policies that were read have not their commit's hash.
	mismatch atomic.Bool
	identity *identity.Identity
	nats     *nats.Conn // nil without NATS_URL
}

// Run serves until the context ends, or until Envoy must not go on because the interface cannot be guarded.
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
	stop, err := cfg.Tracing.Start(ctx, "marchproxy-agent", cfg.ID, log)
	if err != nil {
		return err
	}
	defer stop()
	a := &agent{cfg: cfg, log: log}
	// While this process still sees who else has a port.
	lis, err := process.Listen(ctx, cfg.HTTPAddr, "AGENT_HTTP_ADDR")
	if err != nil {
		return err
	}
	if cfg.supervises() {
		if a.envoyDoor, err = process.Listen(ctx, cfg.DoorAddr, "ENVOY_ADMIN_ADDR"); err != nil {
			log.Error("trying again: " + err.Error())
		}
	}
	// Before a file is read that is read again later: what only root's rights open shows now, and not at the next
	// rotation.
	var toGuard []cap.Value
	if cfg.Interface != "" {
		toGuard = privilege.ToGuard
	}
	if _, err := privilege.Keep(toGuard...); err != nil {
		return err
	}
	id, err := identity.Open(cfg.Identity.Files)
	if err != nil {
		return err
	}
	a.identity = id
	if cfg.supervises() && cfg.Identity.Encrypts() {
		a.cfg.Envoy.TLS = &bootstrap.TLS{Identity: id, Dir: cfg.RunDir}
	}
	var group process.Group
	if !identity.LoopbackAddr(cfg.HTTPAddr) {
		lis = id.Wrap(lis, true, log) // this machine's own look at it needs no certificate
	}
	a.observer = &envoyadmin.Observer{
		Admin: envoyadmin.New(cfg.Envoy.AdminAddr), Probes: bootstrap.ProbeSocket(cfg.Envoy.AdminAddr), Place: cfg.Envoy.Place,
	}
	if cfg.NatsURL != "" {
		nc, err := bus.Connect(cfg.NatsURL, "marchproxy-agent "+cfg.ID, cfg.Identity, id, log)
		if err != nil {
			return err
		}
		defer nc.Close()
		if err := a.follow(&group, nc); err != nil {
			return err
		}
	}
	if cfg.supervises() {
		if err := a.supervise(&group); err != nil {
			return err
		}
	}
	group.Add("certificates", func(ctx context.Context) error {
		return id.Watch(ctx, log, func() {
			if a.cfg.Envoy.TLS == nil {
				return
			}
			if err := a.cfg.Envoy.TLS.Write(); err != nil {
				log.Error("Envoy goes on with the certificates that it has", zap.Error(err))
			}
		})
	})
	group.Add("http", func(ctx context.Context) error {
		return process.ServeHTTP(ctx, lis, a.door(), time.Minute, 2*time.Second)
	})
	log.Info("serving", zap.String("http", lis.Addr().String()), zap.String("id", cfg.ID),
		zap.String("interface", cfg.Interface), zap.Any("labels", cfg.Labels))
	return group.Run(ctx)
}

// follow adds what keeps the kernel equal to the policies.
func (a *agent) follow(group *process.Group, nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	a.enforcer = enforce.New(enforce.Options{
		ID: a.cfg.ID, Labels: a.cfg.Labels, Interface: a.cfg.Interface, Mode: bpf.Mode(a.cfg.Mode), Required: a.cfg.Required,
		PinDir: a.cfg.PinDir, Kernel: bpf.Options{Sources: uint32(a.cfg.Sources)}, StateDir: a.cfg.StateDir, Log: a.log,
		Peers: newPeers(a.cfg, nc).addresses, Guarded: a.guarded,
	})
	e := a.enforcer
	a.nats = nc
	initial, commit := e.Initial()
	group.Add("status", func(ctx context.Context) error { return status.Report(ctx, nc, e.Changed(), a.report) })
	group.Add("last good state", e.Persist)
	group.Add("xdp", e.Run)
	group.Add("replay", func(ctx context.Context) error {
		return stream.Replay(ctx, js, stream.Options{
			Kinds: []string{resource.KindRateLimit}, Apart: a.cfg.ID, Initial: initial, InitialCommit: commit,
			OnUpdate: e.Update, OnProgress: a.behind.Store,
			OnMismatch: a.mismatch.Store, Log: a.log,
		})
	})
	return nil
}

// guarded gives up what only beginning takes.
func (a *agent) guarded() {
	left, err := privilege.Keep(privilege.Guarding())
	if err != nil {
		a.log.Error("the agent goes on with more than it needs", zap.Error(err))
		return
	}
	a.log.Info("gave up all other capabilities", zap.String("left", left))
}

// report is the node's status.
func (a *agent) report(now time.Time) status.AgentStatus {
	s := a.enforcer.Status(now)
	if a.cfg.supervises() {
		s.Envoy, s.EnvoyGateway, s.EnvoyReport = a.cfg.Envoy.NodeID, a.cfg.Envoy.Gateway, a.observer.Report()
	}
	return s
}

// supervise adds Envoy. Where the interface must be guarded it begins when it is.
func (a *agent) supervise(group *process.Group) error {
	s, err := envoy.New(envoy.Options{
		Path: a.cfg.EnvoyPath, Bootstrap: a.cfg.Envoy, Door: a.cfg.DoorAddr, Listener: a.envoyDoor,
		Dir: a.cfg.RunDir, LogFile: a.cfg.LogFile, LogLevel: a.cfg.LogLevel, Concurrency: a.cfg.EnvoyConcurrency,
		Drain: a.cfg.Drain, Output: os.Stderr, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.envoy = s
	group.Add("envoy's traffic", a.observer.Run)
	if a.nats != nil {
		tail := &accesslog.Tail{
			ID: a.cfg.ID, Proxy: a.cfg.Envoy.NodeID, Gateway: a.cfg.Envoy.Gateway, Admin: envoyadmin.New(a.cfg.Envoy.AdminAddr),
			Socket: a.cfg.Envoy.TailSocket, Requests: a.observer.Requests, Log: a.log,
		}
		group.Add("access log", func(ctx context.Context) error {
			if err := tail.Run(ctx, a.nats); err != nil { // Envoy serves all the same
				a.log.Error("the access log cannot be watched", zap.Error(err))
			}
			<-ctx.Done()
			return nil
		})
	}
	group.Add("envoy", func(ctx context.Context) error {
		if a.cfg.Required {
			select {
			case <-a.enforcer.Attached():
			case <-ctx.Done():
				return nil
			}
		}
		return s.Run(ctx)
	})
	return nil
}
