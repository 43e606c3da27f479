package enforce

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/bpf"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/tracing"
)

// Options of an enforcer.
type Options struct {
	ID     string
	Labels map[string]string
	// Interface to guard; "" for a node that follows the policies but enforces nothing.
	Interface string
	Mode      bpf.Mode
	// Required makes a failure to guard the interface the end of [Enforcer.Run].
	Required bool
	// PinDir is where the program is pinned; "" for the usual place, see [bpf.FindPinDir].
	PinDir string
	// Kernel says how large the program's maps are.
	Kernel   bpf.Options
	StateDir string
	// Peers are the addresses that no policy may lock out, asked for now and then.
	Peers func(context.Context) []netip.Addr
	// Guarded is called when the interface is guarded for the first time, before the status and [Enforcer.Attached] say
	// so.
	Guarded func()
	Log     *zap.Logger
}

// recheck is how often what failed is tried again, and the interface is looked at.
const recheck = 5 * time.Second

// applyTimeout is how long the kernel may take for one ruleset; a million networks take a few seconds.
const applyTimeout = 30 * time.Second

// Enforcer keeps the kernel equal to the policies. Its methods may be used by several goroutines.
type Enforcer struct {
	opt      Options
	changed  chan struct{} // something to report
	toSave   chan struct{} // something to write down
	attached chan struct{} // closed when the interface is guarded for the first time
	disk     *lastGood

	// work is held by who changes what is in force, for as long as the kernel and the disk take. Nobody else writes
	// what mu guards, but for sample and sources: who holds work reads that without mu.
	work sync.Mutex
	// mu is held for moments only: a report that waited for the kernel would be late enough for the api to call the
	// node absent.
	mu       sync.Mutex
	policies map[string]*policy // those that select this node
	all      map[string]*resource.Object
	numbers  ids
	commit   resource.Commit
	known    bool // a state has been read, from disk or NATS
	peers    []netip.Addr
	warnings []string
	program  *bpf.Program
	pins     bpf.PinPlace
	on       bpf.Attached
	failure  error
	unsaved  error // why the policies are not written down
	// applied are the revisions in force, by policy.
	applied map[string]int64
	// upTo is the commit that is in force in full, or that failure is about.
	upTo resource.Commit
	// sample and sources are what the kernel has counted.
	sample  bpf.Stats
	sources []status.LimitedSource
}

// set changes what reports are made of.
func (e *Enforcer) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

// New returns an enforcer with the last good policies; nothing is enforced before [Enforcer.Run].
func New(opt Options) *Enforcer {
	e := &Enforcer{
		opt: opt, changed: make(chan struct{}, 1), toSave: make(chan struct{}, 1), attached: make(chan struct{}),
		disk:     newLastGood(opt.StateDir),
		policies: map[string]*policy{}, all: map[string]*resource.Object{}, numbers: ids{}, applied: map[string]int64{},
	}
	s, objects, found, err := e.disk.load()
	if err != nil {
		// Envoy must not be down for want of this. The kernel has what it was told, or NATS says it again.
		opt.Log.Error("the last good policies cannot be read; waiting for NATS", zap.Error(err))
	}
	if found {
		maps.Copy(e.numbers, s.Numbers)
		e.take(resource.Update{Commit: s.Commit, Changed: objects})
		opt.Log.Info("beginning with the last good policies", zap.Int64("revision", s.Commit.Revision),
			zap.Int("policies", len(objects)))
	}
	return e
}

// Initial is what the replay begins with.
func (e *Enforcer) Initial() ([]*resource.Object, resource.Commit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Values(e.all)), e.commit
}

// Changed signals that there is something new to report.
func (e *Enforcer) Changed() <-chan struct{} { return e.changed }

// Attached is closed when the interface is guarded for the first time.
func (e *Enforcer) Attached() <-chan struct{} { return e.attached }

func raise(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // raised already
	}
}

// take puts an update into the state.
func (e *Enforcer) take(u resource.Update) {
	mine := map[string]*policy{}
	for _, o := range u.Changed {
		if !o.Deleted && config.Selects(o.Message().(*configv1.RateLimitPolicy).GetNodeSelector(), e.opt.Labels) {
			mine[o.Name] = parse(o)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range u.Changed {
		if e.all[o.Name] = o; o.Deleted {
			delete(e.all, o.Name)
		}
		if e.policies[o.Name] = mine[o.Name]; mine[o.Name] == nil {
			delete(e.policies, o.Name)
		}
	}
	e.numbers.assign(slices.Sorted(maps.Keys(e.policies)))
	e.commit, e.known = u.Commit, true
}

// Update takes what the event stream says and puts it in force. It never fails: what the kernel does not take is
// tried again, and the status says why.
func (e *Enforcer) Update(u resource.Update) error {
	e.work.Lock()
	defer e.work.Unlock()
	first := !e.known
	e.take(u)
	if len(u.Changed) == 0 && !first && e.failure == nil && e.upTo.Epoch == u.Commit.Epoch {
		e.set(func() { e.upTo = u.Commit }) // of other kinds: nothing to do, and the next report is soon enough to say so
		return nil
	}
	began := tracing.Now()
	e.save(u.Changed) // before it is in force: an agent that is killed must not come back with what was before
	written := tracing.Now()
	e.enforce()
	e.record(began, written)
	raise(e.changed)
	return nil
}

// record has what was done for the commit in its trace.
func (e *Enforcer) record(began, written time.Time) {
	if !tracing.On() {
		return
	}
	whole := tracing.Parent(e.commit.Traceparent)
	about := []attribute.KeyValue{
		attribute.String("marchproxy.node", e.opt.ID), attribute.Int64("marchproxy.revision", e.commit.Revision),
	}
	tracing.Span(whole, "write down", began, written, e.unsaved, about...)
	tracing.Span(whole, "enforce", written, time.Now(), e.failure,
		append(about, attribute.Int("marchproxy.policies", len(e.policies)))...)
}

// enforce brings the kernel to where the policies are, as far as it can.
func (e *Enforcer) enforce() {
	if !e.known {
		return // NATS will tell
	}
	if err := e.try(); err != nil {
		if e.failure == nil || e.failure.Error() != err.Error() {
			e.opt.Log.Error("packets are not limited as the policies say: "+err.Error(),
				zap.String("interface", e.opt.Interface))
		}
		e.set(func() { e.failure, e.upTo = err, e.commit })
		return
	}
	if e.failure != nil {
		e.opt.Log.Info("packets are limited again", zap.String("interface", e.opt.Interface))
	}
	e.set(func() { e.failure = nil })
}

func (e *Enforcer) try() error {
	if e.opt.Interface == "" {
		e.set(func() { e.upTo = e.commit })
		return nil
	}
	if e.program == nil {
		if err := e.load(); err != nil {
			return err
		}
	}
	rules, warnings := combine(e.policies, e.numbers, e.peers)
	ctx, cancel := context.WithTimeout(context.Background(), applyTimeout)
	defer cancel()
	if err := e.program.Apply(ctx, rules); err != nil {
		return err
	}
	for _, w := range warnings {
		if !slices.Contains(e.warnings, w) {
			e.opt.Log.Warn(w)
		}
	}
	e.set(func() {
		e.warnings, e.upTo = warnings, e.commit
		clear(e.applied)
		for name, p := range e.policies {
			e.applied[name] = p.object.Revision
		}
	})
	return e.attach()
}

// load finds where to pin, and loads the program from there.
func (e *Enforcer) load() error {
	pins, err := bpf.FindPinDir(e.opt.PinDir)
	if err != nil {
		return err
	}
	if pins.Mounted != "" {
		e.opt.Log.Info("mounted a BPF file system, which was not there", zap.String("at", pins.Mounted))
	}
	if pins.Warning != "" && pins.Warning != e.pins.Warning {
		e.opt.Log.Warn(pins.Warning)
	}
	e.set(func() { e.pins = pins })
	kernel := e.opt.Kernel
	kernel.PinDir = pins.Dir
	program, err := bpf.Open(kernel)
	e.set(func() { e.program = program })
	return err
}

// attach guards the interface, again where it was made anew.
func (e *Enforcer) attach() error {
	if e.on.Mode != "" {
		if i, err := net.InterfaceByName(e.opt.Interface); err == nil && i.Index == e.on.Index {
			return nil
		}
		e.set(func() { e.on = bpf.Attached{} })
	}
	on, err := e.program.Attach(e.opt.Interface, e.opt.Mode)
	if err != nil {
		return err
	}
	first := false
	select {
	case <-e.attached:
	default:
		first = true
		e.opt.Guarded() // before anybody is told
	}
	e.set(func() { e.on = on })
	e.opt.Log.Info("the interface is guarded", zap.String("interface", on.Interface), zap.String("mode", string(on.Mode)),
		zap.Uint32("program", on.ProgramID))
	if first {
		close(e.attached)
	}
	return nil
}

// Run keeps the interface guarded until the context ends. The kernel goes on enforcing after that.
func (e *Enforcer) Run(ctx context.Context) error {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		peers := e.opt.Peers(ctx)
		failure := e.review(peers)
		e.Sample()
		raise(e.changed)
		if e.opt.Required && failure != nil {
			return errors.Join(failure, e.close()) // XDP_REQUIRED says so
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return e.close()
		}
	}
}

// review tries again what has failed, and looks whether the interface is guarded still; it says what is wrong in the
// end.
func (e *Enforcer) review(peers []netip.Addr) error {
	e.work.Lock()
	defer e.work.Unlock()
	again := e.failure != nil || e.program == nil || !slices.Equal(peers, e.peers)
	e.set(func() { e.peers = peers })
	if again {
		e.enforce()
	} else if e.opt.Interface != "" {
		if err := e.attach(); err != nil {
			e.set(func() { e.failure = err })
			e.opt.Log.Error("the interface is not guarded any more: " + err.Error())
		}
	}
	if e.unsaved != nil {
		e.save(nil) // all of it, since the last attempt has failed
	}
	return e.failure
}

func (e *Enforcer) close() error {
	e.work.Lock()
	defer e.work.Unlock()
	p := e.program
	if p == nil {
		return nil
	}
	e.set(func() { e.program, e.on = nil, bpf.Attached{} })
	return p.Close()
}

// save writes down what has changed.
func (e *Enforcer) save(changed []*resource.Object) {
	was := e.unsaved
	err := e.disk.save(e.commit, e.numbers, changed, e.all)
	e.set(func() { e.unsaved = err })
	switch {
	case err != nil:
		e.opt.Log.Error("the last good policies cannot be written; a restart would find older ones until NATS answers",
			zap.Error(err))
		return
	case was != nil:
		e.opt.Log.Info("the last good policies are written again")
	}
	raise(e.toSave)
}

// Persist waits for the disk after each change, until the context ends, so that nobody else has to.
func (e *Enforcer) Persist(ctx context.Context) error {
	for {
		select {
		case <-e.toSave:
		case <-ctx.Done():
			return nil
		}
		if err := e.disk.durable(); err != nil {
			e.opt.Log.Error("the last good policies may not be on the disk", zap.Error(err))
		}
	}
}
