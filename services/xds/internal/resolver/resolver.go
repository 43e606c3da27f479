// Package resolver follows the DNS names of services' endpoints, so that Envoy gets addresses and
// never waits for a name: a cluster that Envoy resolves itself stays warming after its ACK, and a route
// to it answers 503.
//
// A new name is pending until it has been answered or its deadline has passed; from then on it has its last
// known addresses, none at worst. A failing lookup keeps them, whatever it fails with; so does another process of
// this server, which is handed them by [Resolver.Restore]. Records' time to live is not looked at: a name is
// asked for again every [Options.Refresh], and the caching DNS server on the way answers from its cache.
package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/endpoint"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// Options tune a resolver; zero values mean the defaults named.
type Options struct {
	// Refresh is the time between lookups of a name that has addresses; 5s. One without is asked for again after
	// 1, 2 and 4 s, then as often.
	Refresh time.Duration
	// Deadline is how long a new name may be pending, and how long a lookup may take before it is spoken of; 2s.
	Deadline time.Duration
	// Timeout is how long a lookup may take; 10s: time for three DNS servers of which two are away.
	Timeout time.Duration
	// Parallel lookups; 64. Names whose last lookup failed get half of them at most, so that a DNS server that is
	// away for some names does not delay the others.
	Parallel int
	// Lookup is the system's resolver where nil.
	Lookup Lookup
	// Allowed are the addresses that a name may have beside the ordinary ones. Others count as none.
	Allowed endpoint.Allowed
	// Moved is told, without locks held, before anybody else: there is something for [Resolver.Unsaved].
	Moved func()
	// Troubled is told, without locks held, when [Resolver.Troubles] has another answer.
	Troubled func()
	Log      *zap.Logger
}

// Trouble is a name whose last lookup brought no addresses.
type Trouble struct {
	Host    string
	Problem status.Problem
	Reason  string
	// Addresses are how many it had last.
	Addresses int
	Since     time.Time
}

// trouble is what ails a name.
type trouble struct {
	problem status.Problem
	reason  string
	since   time.Time
}

// answer is what is known of a name.
type answer struct {
	addrs []netip.Addr
	// known says that addrs are what there is.
	known bool
	// trouble is what ails the name, nil for nothing; warned says that the log has it.
	trouble *trouble
	warned  bool
	// due is when it is looked up again. busy says that a lookup is under way, since started.
	due     time.Time
	busy    bool
	started time.Time
	// fails counts the lookups that failed one after the other.
	fails int
	// deadline ends the wait for the first answer.
	deadline *time.Timer
}

// Resolver follows a set of names.
type Resolver struct {
	opt     Options
	changed func(names []string)

	mu    sync.Mutex
	names map[string]*answer
	// runs says that names are looked up: before that no deadline passes.
	runs bool
	// fresh are names to be looked up at once.
	fresh []string
	// unsaved are the names whose addresses have changed, or that are followed no more.
	unsaved map[string]struct{}
	// unresolved are those without an address that has been told; listed is the same in order, nil when it has changed:
	// every status report asks for it.
	unresolved map[string]struct{}
	listed     []string
	// busy counts the lookups under way, failing those of names whose last one failed.
	busy, failing int
	poke          chan struct{}
}

// New returns a resolver that calls changed, from its own goroutines, with names whose addresses are
// not what they were.
func New(opt Options, changed func(names []string)) *Resolver {
	if opt.Refresh == 0 {
		opt.Refresh = 5 * time.Second
	}
	if opt.Deadline == 0 {
		opt.Deadline = 2 * time.Second
	}
	if opt.Timeout == 0 {
		opt.Timeout = 10 * time.Second
	}
	if opt.Parallel == 0 {
		opt.Parallel = 64
	}
	if opt.Lookup == nil {
		opt.Lookup = System()
	}
	if opt.Moved == nil {
		opt.Moved = func() {}
	}
	if opt.Troubled == nil {
		opt.Troubled = func() {}
	}
	return &Resolver{
		opt: opt, changed: changed, names: map[string]*answer{}, unsaved: map[string]struct{}{},
		unresolved: map[string]struct{}{}, poke: make(chan struct{}, 1),
	}
}

// Follow begins to look a name up, unless that has begun already.
func (r *Resolver) Follow(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[host] != nil {
		return
	}
	a := &answer{trouble: &trouble{status.NamePending, "has not been answered by DNS yet", time.Now()}}
	r.names[host] = a
	if r.runs {
		r.limit(host, a)
	}
	r.unresolved[host], r.listed = struct{}{}, nil
	r.fresh = append(r.fresh, host)
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// limit has a new name wait for its first answer no longer than the deadline.
func (r *Resolver) limit(host string, a *answer) {
	a.deadline = time.AfterFunc(r.opt.Deadline, func() { r.late(host, a) })
}

// Forget ends that.
func (r *Resolver) Forget(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.names[host]; a != nil {
		if a.deadline != nil {
			a.deadline.Stop()
		}
		delete(r.names, host)
		delete(r.unresolved, host)
		r.listed = nil
		r.unsaved[host] = struct{}{}
	}
}

// Restore hands over the addresses that an earlier process has found. They count for names that are followed and whose
// first lookup fails or is not answered by the deadline.
func (r *Resolver) Restore(saved map[string][]netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for host, addrs := range saved {
		if a := r.names[host]; a != nil && !a.known {
			a.addrs, _ = r.allowed(addrs) // what is allowed may have changed since
		} else {
			r.unsaved[host] = struct{}{}
		}
	}
}

// Resolve returns a name's addresses, in order; not ok while it is pending.
func (r *Resolver) Resolve(host string) ([]netip.Addr, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.names[host]; a != nil && a.known {
		return a.addrs, true
	}
	return nil, false
}

// Unsaved returns the addresses that have changed since it was called last: none for names that are not
// followed any more.
func (r *Resolver) Unsaved() map[string][]netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string][]netip.Addr{}
	for host := range r.unsaved {
		out[host] = nil
		if a := r.names[host]; a != nil {
			out[host] = a.addrs
		}
	}
	clear(r.unsaved)
	return out
}

// Unresolved lists the names without an address, in order; the list is not to be changed. One whose addresses have just
// come is listed until changed has returned.
func (r *Resolver) Unresolved() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.unresolved) > 0 && r.listed == nil {
		r.listed = slices.Sorted(maps.Keys(r.unresolved))
	}
	return r.listed
}

// Troubles lists the names whose last lookup brought no addresses, in order.
func (r *Resolver) Troubles() []Trouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Trouble
	for host, a := range r.names {
		if a.trouble != nil {
			t := Trouble{Host: host, Problem: a.trouble.problem, Reason: a.trouble.reason, Since: a.trouble.since}
			if a.known {
				t.Addresses = len(a.addrs)
			}
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(x, y Trouble) int {
		if x.Host < y.Host {
			return -1
		}
		return 1
	})
	return out
}

// Run looks names up until the context ends.
func (r *Resolver) Run(ctx context.Context) error {
	tick := time.NewTicker(min(r.opt.Refresh/4, 500*time.Millisecond))
	defer tick.Stop()
	r.mu.Lock()
	r.runs = true
	for host, a := range r.names {
		r.limit(host, a)
	}
	r.mu.Unlock()
	for all := true; ; {
		r.start(ctx, time.Now(), all)
		select {
		case <-r.poke:
			all = false
		case <-tick.C:
			all = true
		case <-ctx.Done():
			return nil
		}
	}
}

// start begins the lookups that are due: of all names, or only of the new ones, of which a change costs no look at
// the others.
func (r *Resolver) start(ctx context.Context, now time.Time, all bool) {
	r.mu.Lock()
	for _, host := range r.fresh {
		if a := r.names[host]; a != nil {
			r.begin(ctx, host, a, now)
		}
	}
	r.fresh = r.fresh[:0]
	troubled := false
	if all {
		for host, a := range r.names {
			r.begin(ctx, host, a, now)
			if a.busy && a.trouble == nil && now.Sub(a.started) >= r.opt.Deadline {
				a.trouble, troubled = &trouble{status.NameTimeout, noAnswer, a.started}, true
			}
		}
	}
	r.mu.Unlock()
	if troubled {
		r.opt.Troubled()
	}
}

const noAnswer = "gets no answer from DNS"

func (r *Resolver) begin(ctx context.Context, host string, a *answer, now time.Time) {
	slow := a.fails > 0
	if a.busy || now.Before(a.due) || r.busy >= r.opt.Parallel || (slow && r.failing >= max(r.opt.Parallel/2, 1)) {
		return // the next tick looks again
	}
	a.busy, a.started = true, now
	r.busy++
	if slow {
		r.failing++
	}
	go func() {
		limit, cancel := context.WithTimeout(ctx, r.opt.Timeout)
		defer cancel()
		addrs, err := r.opt.Lookup(limit, host)
		r.mu.Lock()
		a.busy = false
		r.busy--
		if slow {
			r.failing--
		}
		r.mu.Unlock()
		if ctx.Err() == nil {
			r.settle(host, a, addrs, err)
		}
	}()
}

// late ends the waiting for a new name's first answer.
func (r *Resolver) late(host string, a *answer) {
	r.mu.Lock()
	if a.known || r.names[host] != a {
		r.mu.Unlock()
		return
	}
	a.known = true
	a.trouble = &trouble{status.NameTimeout, noAnswer, a.trouble.since}
	r.mu.Unlock()
	r.tell(host, a)
	r.opt.Troubled()
}

// settle takes the outcome of a lookup.
func (r *Resolver) settle(host string, a *answer, addrs []netip.Addr, err error) {
	r.mu.Lock()
	now := time.Now()
	first, was := !a.known, a.trouble
	moved := first
	addrs, refused := r.allowed(addrs)
	if len(addrs) > 0 {
		all, kept := complete(addrs, err, a.addrs)
		moved = moved || !slices.Equal(a.addrs, all)
		a.addrs, a.fails = all, 0
		switch {
		case refused != nil:
			a.ail(refused, now)
		case kept:
			a.ail(err, now)
		default:
			a.trouble = nil
		}
	} else {
		err = cmp.Or(refused, err)
		a.fails++
		a.ail(err, now)
	}
	a.known = true
	a.deadline.Stop()
	a.due = now.Add(r.opt.Refresh)
	if len(a.addrs) == 0 {
		a.due = now.Add(min(r.opt.Refresh, time.Second<<min(a.fails-1, 10)))
	}
	r.log(host, a)
	followed := r.names[host] == a
	if followed && moved {
		r.unsaved[host] = struct{}{}
	}
	troubled := (was == nil) != (a.trouble == nil) || (was != nil && *was != *a.trouble) || (moved && a.trouble != nil)
	r.mu.Unlock()
	if !followed {
		return
	}
	if moved {
		r.opt.Moved()
		r.tell(host, a)
	}
	if troubled {
		r.opt.Troubled()
	}
}

// refusal says that a name has addresses that a service may not have.
type refusal string

// Error says which.
func (r refusal) Error() string { return string(r) }

// allowed are those of a name's addresses that may be endpoints; the error is about the first of the others.
func (r *Resolver) allowed(addrs []netip.Addr) (may []netip.Addr, refused error) {
	for _, a := range addrs {
		why := r.opt.Allowed.Refusal(a)
		switch {
		case why == "":
			may = append(may, a)
		case refused == nil:
			refused = refusal(fmt.Sprintf("has %s, which %s", a, why))
		}
	}
	return may, refused
}

// tell says that there are addresses; until everybody has them the name counts as unresolved.
func (r *Resolver) tell(host string, a *answer) {
	r.changed([]string{host})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(a.addrs) > 0 && r.names[host] == a {
		delete(r.unresolved, host)
		r.listed = nil
	}
}

// ail notes why there was no answer; a problem that goes on has begun when it began.
func (a *answer) ail(err error, now time.Time) {
	t := &trouble{status.NameFailed, "cannot be looked up", now}
	var timeout net.Error
	var refused refusal
	switch {
	case errors.As(err, &refused):
		t.problem, t.reason = status.NameRefused, refused.Error()
	case err == nil, errors.Is(err, ErrNoAddresses):
		t.problem, t.reason = status.NameNoAddresses, ErrNoAddresses.Error()
	case errors.Is(err, ErrNotFound):
		t.problem, t.reason = status.NameNotFound, ErrNotFound.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		t.problem, t.reason = status.NameTimeout, noAnswer
	default:
		t.reason += ": " + err.Error()
	}
	if a.trouble != nil && a.trouble.problem == t.problem {
		t.since = a.trouble.since
	}
	a.trouble = t
}

// complete adds to a part of an answer the last addresses of the other family, which could not be asked for.
func complete(addrs []netip.Addr, err error, last []netip.Addr) (all []netip.Addr, kept bool) {
	all = make([]netip.Addr, 0, len(addrs))
	var four, six bool
	for _, x := range addrs {
		x = x.Unmap()
		all, four, six = append(all, x), four || x.Is4(), six || x.Is6()
	}
	if err != nil {
		for _, x := range last {
			if (x.Is4() && !four) || (x.Is6() && !six) {
				all, kept = append(all, x), true
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all), kept
}

// log says when a name begins to fail, and when that is over.
func (r *Resolver) log(host string, a *answer) {
	switch fails := a.trouble != nil; {
	case r.opt.Log == nil || fails == a.warned:
	case fails:
		r.opt.Log.Warn("a service's host does not resolve, or not as it may; its last addresses are kept",
			zap.String("host", host),
			zap.Int("addresses", len(a.addrs)), zap.String("problem", string(a.trouble.problem)),
			zap.String("reason", a.trouble.reason))
		a.warned = true
	default:
		r.opt.Log.Info("a service's host resolves again", zap.String("host", host), zap.Int("addresses", len(a.addrs)))
		a.warned = false
	}
}
