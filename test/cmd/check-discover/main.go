// Command check-discover proves discovery with a real Docker engine (scripts/docker starts one where none answers):
// compose services come, are scaled, restarted, made sick and well, and go, while requests go to all of them. What the
// engine's events say has to be so at Envoy within two seconds, and no request may fail to a service that has a
// container which is up and was not told to end. Then the engine is stopped for a while as a process that hangs, and
// restarted.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/pkg/engine"
	"github.com/marchproxy/marchproxy/test/harness"
)

type options struct {
	services, rate int
	length, within time.Duration
	hang, list     time.Duration
	restart        bool
}

func main() {
	var o options
	flag.IntVar(&o.services, "services", 50, "compose services")
	flag.IntVar(&o.rate, "rate", 500, "requests a second, to all of them together")
	flag.DurationVar(&o.length, "for", 10*time.Minute, "how long services come and go")
	flag.DurationVar(&o.within, "within", 2*time.Second, "how long after the engine's event a state may "+
		"take to be at Envoy")
	flag.DurationVar(&o.hang, "hang", 15*time.Second, "how long the engine hangs; 0 for not at all")
	flag.DurationVar(&o.list, "list", 10*time.Second, "how long a list of containers takes at the least, while services change; "+
		"0 leaves that out")
	flag.BoolVar(&o.restart, "restart", true, "restart the engine, which has to be the one that scripts/docker starts")
	flag.Parse()
	// Ctrl-C takes away what was started, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "check-discover:", err)
		os.Exit(1)
	}
}

const (
	image   = "marchproxy-check-discover"
	project = "checkdiscover"
)

// trial is everything of a run.
type trial struct {
	options
	root, dir string
	s         *harness.System
	discover  *exec.Cmd
	state     string // URL
	host      string // of the engine
	engine    *engine.Client
	token     string
	last      int64 // when the last event was, for the one who reads them

	mu sync.Mutex
	// up are the containers of each service that take requests: healthy, and not told to end.
	up map[string]map[string]bool
	// since is when a service last had none of them.
	since map[string]time.Time
	// expected is what has to be at Envoy, by address, and since when.
	expected map[string]*expectation
	// seen is what Envoy had, by cluster and address, each state once, in order.
	seen    map[string]map[string][]look
	slow    []string
	slowest time.Duration
	blind   time.Duration // the longest time between two looks at Envoy
	states  int
	// killed is when a container of a service was last killed, which cuts off what it was answering.
	killed   map[string]time.Time
	sent     atomic.Int64
	failed   atomic.Int64
	cut      atomic.Int64 // by a kill
	examples []string
}

type expectation struct {
	cluster string
	what    string // ready, draining or gone
	at      time.Time
	late    bool
}

func run(ctx context.Context, o options) (err error) {
	t := &trial{
		options: o, up: map[string]map[string]bool{}, since: map[string]time.Time{},
		expected: map[string]*expectation{}, seen: map[string]map[string][]look{}, killed: map[string]time.Time{},
	}
	if t.root, err = harness.Root(); err != nil {
		return err
	}
	t.host = cmp.Or(os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock")
	if t.engine, err = engine.New(t.host, time.Minute); err != nil {
		return err
	}
	if t.dir, err = os.MkdirTemp("", "check-discover-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(t.dir)) }()
	fmt.Println("starting the engine and building the backend's image")
	if err := t.prepare(ctx); err != nil {
		return err
	}
	if t.s, err = harness.Start(ctx, "--no-demo", "--concurrency", "2"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.s.Close()) }()
	defer func() { err = errors.Join(err, t.compose(context.WithoutCancel(ctx), "down", "--timeout", "3")) }()
	if err := t.begin(ctx); err != nil {
		return err
	}
	defer t.end()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	events := t.events(ctx)
	all.Go(func() { t.follow(events) })
	all.Go(func() { t.watch(ctx) })
	fmt.Printf("%d services come\n", o.services)
	if err := t.compose(ctx, "up", "--detach", "--wait"); err != nil {
		return err
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	for i := range o.services {
		all.Go(func() { t.load(ctx, i) })
	}
	if err := t.vary(ctx); err != nil {
		return err
	}
	if err := t.badLabel(ctx); err != nil {
		return err
	}
	if o.list > 0 {
		if err := t.slowLists(ctx); err != nil {
			return err
		}
	}
	if o.hang > 0 {
		if err := t.trouble(ctx); err != nil {
			return err
		}
	}
	if o.restart {
		if err := t.restartEngine(ctx); err != nil {
			return err
		}
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	return t.result()
}

// end ends the program under test.
func (t *trial) end() {
	_ = t.discover.Process.Signal(syscall.SIGTERM)
	_ = t.discover.Wait() // it ends by the signal
}

func (t *trial) result() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Printf("%d states, the slowest at Envoy %s after the engine's event (Envoy was looked at every %s at the least); %d "+
		"requests, %d failed, and %d were cut off by the kill of what was answering them\n", t.states,
		t.slowest.Round(time.Millisecond), t.blind.Round(time.Millisecond), t.sent.Load(), t.failed.Load(), t.cut.Load())
	var wrong []error
	if n := t.failed.Load(); n > 0 {
		wrong = append(wrong, fmt.Errorf("%d requests failed to services that were up: %s", n,
			strings.Join(t.examples, "; ")))
	}
	for addr, e := range t.expected {
		wrong = append(wrong, fmt.Errorf("%s of %s has never been %s", addr, e.cluster, e.what))
	}
	if len(t.slow) > 0 {
		wrong = append(wrong, fmt.Errorf("%d states took longer than %s: %s", len(t.slow), t.within,
			strings.Join(t.slow[:min(len(t.slow), 10)], "; ")))
	}
	return errors.Join(wrong...)
}
