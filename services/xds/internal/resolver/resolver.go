// Package resolver follows the DNS names of services' endpoints, so that Envoy gets addresses and
// never waits for a name: a cluster that Envoy resolves itself stays warming after its ACK, and a route
// to it answers 503.
//
// A new name is pending until it has been resolved or its deadline has passed; from then on it always
// has a last known answer, empty at worst. A failing lookup keeps the last answer.
package resolver

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Lookup is net.Resolver's LookupNetIP.
type Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// Options tune a resolver; zero values mean the defaults named.
type Options struct {
	// Refresh is the time between lookups of a name; 5s.
	Refresh time.Duration
	// Deadline is how long a new name may be pending; 2s.
	Deadline time.Duration
	// Parallel lookups; 32.
	Parallel int
	// Lookup is the system's resolver where nil.
	Lookup Lookup
	Log    *zap.Logger
}

type answer struct {
	addrs []netip.Addr
	known bool
	due   time.Time
	busy  bool
	fails int
}

// Resolver follows a set of names.
type Resolver struct {
	opt     Options
	changed func(names []string)

	mu    sync.Mutex
	names map[string]*answer
	poke  chan struct{}
	slots chan struct{}
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
	if opt.Parallel == 0 {
		opt.Parallel = 32
	}
	if opt.Lookup == nil {
		opt.Lookup = net.DefaultResolver.LookupNetIP
	}
	return &Resolver{opt: opt, changed: changed, names: map[string]*answer{}, poke: make(chan struct{}, 1), slots: make(chan struct{}, opt.Parallel)}
}

// Resolve returns a name's addresses, in order; not ok while it is pending. A name that is asked for is
// followed from then on.
func (r *Resolver) Resolve(host string) ([]netip.Addr, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.names[host]
	if a == nil {
		a = &answer{}
		r.names[host] = a
		select {
		case r.poke <- struct{}{}:
		default:
		}
	}
	return a.addrs, a.known
}

// Any says whether any name is followed.
func (r *Resolver) Any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.names) > 0
}

// Keep forgets every name that is not in use.
func (r *Resolver) Keep(inUse func(host string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for host := range r.names {
		if !inUse(host) {
			delete(r.names, host)
		}
	}
}

// Run looks names up until the context ends.
func (r *Resolver) Run(ctx context.Context) error {
	tick := time.NewTicker(min(r.opt.Refresh/4, 500*time.Millisecond))
	defer tick.Stop()
	for {
		r.start(ctx, time.Now())
		select {
		case <-r.poke:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Resolver) start(ctx context.Context, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for host, a := range r.names {
		if a.busy || now.Before(a.due) {
			continue
		}
		select {
		case r.slots <- struct{}{}:
		default:
			return // the next tick goes on
		}
		a.busy = true
		go func() {
			defer func() { <-r.slots }()
			r.lookup(ctx, host, a)
		}()
	}
}

func (r *Resolver) lookup(ctx context.Context, host string, a *answer) {
	limit, cancel := context.WithTimeout(ctx, r.opt.Deadline)
	defer cancel()
	addrs, err := r.opt.Lookup(limit, "ip", host)
	if ctx.Err() != nil {
		return
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	r.mu.Lock()
	a.busy, a.due = false, time.Now().Add(r.opt.Refresh)
	changed := !a.known
	switch {
	case err == nil && len(addrs) > 0:
		changed = changed || !slices.Equal(a.addrs, addrs)
		a.addrs, a.fails = addrs, 0
	default:
		if a.fails++; a.fails == 1 && r.opt.Log != nil {
			r.opt.Log.Warn("a service's host does not resolve; its last addresses are kept", zap.String("host", host), zap.Int("addresses", len(a.addrs)), zap.Error(err))
		}
	}
	a.known = true
	_, followed := r.names[host]
	r.mu.Unlock()
	if changed && followed {
		r.changed([]string{host})
	}
}
