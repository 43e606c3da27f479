package envoy

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/supervisor"
	"github.com/marchproxy/marchproxy/services/agent/internal/privilege"
)

// Options of a supervisor.
type Options struct {
	// Path of the program.
	Path      string
	Bootstrap bootstrap.Config
	// Door is host:port at which [envoyadmin.Door] is served, and Listener is there already; nil where that was refused,
	// and is tried again.
	Door     string
	Listener net.Listener
	// Dir is where the bootstrap, which holds the API key, is written for Envoy alone, and where Envoy is started: an
	// absolute path.
	Dir string
	// LogFile is where the access log's file is to be; in Dir where "".
	LogFile string
	// LogLevel is one of debug, info, warn and error.
	LogLevel string
	// Concurrency is how many workers Envoy has; one a CPU where 0.
	Concurrency int
	// Drain is how long requests in flight may take when the supervisor is stopped.
	Drain time.Duration
	// Output takes what Envoy logs.
	Output io.Writer
	Log    *zap.Logger
}

// State is what an operator wants to know.
type State struct {
	// Pid is 0 while Envoy is down.
	Pid int
	// Ready says whether Envoy serves; if not, Reason says why.
	Ready  bool
	Reason string
	// Restarts counts how often Envoy ended by itself.
	Restarts int
}

// Supervisor keeps one Envoy running.
type Supervisor struct {
	opt   Options
	admin envoyadmin.Admin
	child *supervisor.Child
	// open says that the door is.
	open bool

	mu    sync.Mutex
	state State
}

// New returns a supervisor. An error says what is wrong with the options.
func New(opt Options) (*Supervisor, error) {
	raw, err := bootstrap.Render(opt.Bootstrap)
	if err != nil {
		return nil, err
	}
	if opt.Path, err = exec.LookPath(opt.Path); err != nil {
		return nil, fmt.Errorf("ENVOY_PATH: %w; install Envoy, or name it", err)
	}
	if opt.Path, err = filepath.Abs(opt.Path); err != nil {
		return nil, fmt.Errorf("ENVOY_PATH: %w", err)
	}
	if err := process.PrivateDir(opt.Dir); err != nil {
		return nil, fmt.Errorf("MARCHPROXY_RUN_DIR: %w", err)
	}
	if err := placeLog(opt.Dir, opt.LogFile); err != nil {
		return nil, err
	}
	if err := write(opt.Dir, raw); err != nil {
		return nil, err
	}
	if opt.Bootstrap.TLS != nil {
		if err := opt.Bootstrap.TLS.Write(); err != nil {
			return nil, err
		}
	}
	return &Supervisor{
		opt: opt, admin: envoyadmin.New(opt.Bootstrap.AdminAddr), state: State{Reason: "Envoy is being started"},
		child: &supervisor.Child{
			Log: supervisor.Through(opt.Output), Shortest: 100 * time.Millisecond, Longest: 10 * time.Second,
			Grace: 5 * time.Second,
		},
	}, nil
}

func write(dir string, raw []byte) error {
	if err := process.WritePrivate(filepath.Join(dir, "envoy.json"), raw); err != nil {
		return fmt.Errorf("write the bootstrap: %w", err)
	}
	return nil
}

// settle asks the xDS server for the gateway's drain time, which Envoy takes at its start alone, and writes the
// bootstrap that tells it back. Envoy serves nothing before the same server has told it its listeners, so that
// waiting a while for the server costs nothing; where it does not answer, Envoy is started with what was known last.
func (s *Supervisor) settle(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	d, err := bootstrap.AskDrainTime(limit, s.opt.Bootstrap)
	if err != nil {
		s.opt.Log.Warn("the gateway's drain time is not known: Envoy is started with another", zap.Error(err),
			zap.Strings("flags", s.opt.Bootstrap.Flags()))
	} else {
		s.opt.Bootstrap.DrainTime = d
	}
	raw, err := bootstrap.Render(s.opt.Bootstrap)
	if err != nil {
		return err
	}
	return write(s.opt.Dir, raw)
}

// askFor is how long the xDS server may take to answer.
const askFor = 3 * time.Second

// State of the Envoy now.
func (s *Supervisor) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	st.Pid, st.Restarts = s.child.Pid(), s.child.Failures()
	st.Ready = st.Ready && st.Pid != 0
	return st
}

// Run keeps Envoy running until the context ends, and then drains and stops it.
func (s *Supervisor) Run(ctx context.Context) error {
	var draining time.Time
	c := s.child
	c.Command = func(ctx context.Context) (*exec.Cmd, error) {
		if err := s.openDoor(ctx); err != nil {
			return nil, err
		}
		if err := s.settle(ctx); err != nil {
			return nil, err
		}
		return s.command(), nil
	}
	c.Running = s.watch
	c.Ended = func(d supervisor.Death) {
		s.set(func(st *State) { st.Ready, st.Reason = false, fmt.Sprint("Envoy does not run: ", d.Err) })
		s.opt.Log.Error("envoy does not run; starting it again", zap.Error(d.Err), zap.Duration("after", d.Again))
	}
	c.Drain = func(ended <-chan struct{}) {
		draining = time.Now()
		s.set(func(st *State) { st.Ready, st.Reason = false, "Envoy is being drained" })
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opt.Drain)
		defer cancel()
		if err := s.drain(limit, ended); err != nil {
			s.opt.Log.Warn("envoy was stopped before it was idle", zap.Error(err), zap.Duration("drain_timeout", s.opt.Drain))
		}
	}
	if err := c.Run(ctx); !draining.IsZero() {
		s.opt.Log.Info("envoy has stopped", zap.NamedError("exit", err), zap.Duration("after", time.Since(draining)))
	}
	return nil
}

func (s *Supervisor) set(f func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
}

// envoyLevels are Envoy's names of our log levels. At its own debug level it writes down the headers of each request:
// its key for the xDS server, and the tokens of clients.
var envoyLevels = map[string]string{"debug": "info", "info": "info", "warn": "warning", "error": "error"}

// command is Envoy's. Its word on why the xDS server hung up is a warning of the logger "config", which is
// therefore on at every level. Hot restarts, which the agent does not do, need shared memory, which a killed Envoy
// leaves behind and small containers lack.
func (s *Supervisor) command() *exec.Cmd {
	args := []string{
		"-c", filepath.Join(s.opt.Dir, "envoy.json"), "--log-level", envoyLevels[s.opt.LogLevel], "--disable-hot-restart",
	}
	if s.opt.LogLevel == "error" {
		args = append(args, "--component-log-level", "config:warning")
	}
	if s.opt.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(s.opt.Concurrency))
	}
	cmd := privilege.Command(s.opt.Path, append(args, s.opt.Bootstrap.Flags()...)...)
	cmd.Env, cmd.Dir = bootstrap.Environment(), s.opt.Dir
	return cmd
}

// openDoor serves what the admin interface tells, from before Envoy's first start to the end of the agent.
func (s *Supervisor) openDoor(ctx context.Context) error {
	if s.open {
		return nil
	}
	lis := s.opt.Listener
	if lis == nil {
		var err error
		if lis, err = process.Listen(ctx, s.opt.Door, "ENVOY_ADMIN_ADDR"); err != nil {
			return err
		}
	}
	s.open = true
	go func() {
		if err := process.ServeHTTP(ctx, lis, envoyadmin.Door(s.admin), time.Minute, 0); err != nil {
			s.opt.Log.Error("what Envoy's admin interface tells is not served any more", zap.Error(err))
		}
	}()
	return nil
}
