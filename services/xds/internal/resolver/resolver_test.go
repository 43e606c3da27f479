package resolver_test

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
)

// zone is a name server whose answers a test decides.
type zone struct {
	mu      sync.Mutex
	answers map[string][]string // nil fails
	slow    map[string]bool     // never answers
	errs    map[string]error    // what it fails with, where not NXDOMAIN
	parts   map[string]error    // what is missing of its answers
	asked   map[string]int
}

func (z *zone) set(host string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.answers[host] = addrs
}

func (z *zone) change(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

func (z *zone) times(host string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[host]
}

func (z *zone) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked[host]++
	slow, texts, err, missing := z.slow[host], z.answers[host], z.errs[host], z.parts[host]
	z.mu.Unlock()
	if slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if texts == nil {
		if err != nil {
			return nil, err
		}
		return nil, resolver.ErrNotFound
	}
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out, missing
}

// run starts a resolver in a bubble of its own time; changed lists the names whose addresses have changed.
func run(t *testing.T, f func(z *zone, r *resolver.Resolver, changed func() []string)) {
	runAfter(t, func(*zone, *resolver.Resolver) {}, f)
}

// runAfter does something before the resolver runs.
func runAfter(
	t *testing.T, before func(*zone, *resolver.Resolver), f func(z *zone, r *resolver.Resolver, changed func() []string),
) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{
			answers: map[string][]string{}, slow: map[string]bool{}, errs: map[string]error{}, parts: map[string]error{},
			asked: map[string]int{},
		}
		var mu sync.Mutex
		var names []string
		r := resolver.New(resolver.Options{Lookup: z.lookup, Parallel: 4, Log: zap.NewNop()}, func(n []string) {
			mu.Lock()
			defer mu.Unlock()
			names = append(names, n...)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		before(z, r)
		go func() { done <- r.Run(ctx) }()
		f(z, r, func() []string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			out := names
			names = nil
			return out
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func want(t *testing.T, r *resolver.Resolver, host string, known bool, addrs ...string) {
	t.Helper()
	got, ok := r.Resolve(host)
	var texts []string
	for _, a := range got {
		texts = append(texts, a.String())
	}
	if ok != known || !slices.Equal(texts, addrs) {
		t.Errorf("%s: %v, known %v; want %v, %v", host, texts, ok, addrs, known)
	}
}

// TestChanges: a name is pending, then known; it is told when it changes, and not when only the order does.
func TestChanges(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, changed func() []string) {
		z.set("a", "192.0.2.2", "192.0.2.1", "::ffff:192.0.2.1")
		want(t, r, "a", false)
		r.Follow("a")
		if got := changed(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("changed %v", got)
		}
		want(t, r, "a", true, "192.0.2.1", "192.0.2.2")
		z.set("a", "192.0.2.1", "192.0.2.2")
		time.Sleep(30 * time.Second)
		if got := changed(); len(got) > 0 {
			t.Errorf("changed %v for another order", got)
		}
		z.set("a", "192.0.2.3")
		time.Sleep(6 * time.Second)
		if got := changed(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("changed %v", got)
		}
		want(t, r, "a", true, "192.0.2.3")
	})
}

// TestFails: a name that fails is known to have no address; one that has been resolved keeps its last addresses.
func TestFails(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, changed func() []string) {
		z.set("was", "192.0.2.1")
		r.Follow("was")
		r.Follow("never")
		changed()
		want(t, r, "never", true)
		z.set("was")
		time.Sleep(time.Minute)
		want(t, r, "was", true, "192.0.2.1")
		if got := changed(); len(got) > 0 {
			t.Errorf("changed %v", got)
		}
		z.set("never", "192.0.2.7")
		time.Sleep(6 * time.Second)
		if got := changed(); !slices.Equal(got, []string{"never"}) {
			t.Errorf("changed %v", got)
		}
		want(t, r, "never", true, "192.0.2.7")
	})
}

// TestFlaps: an answer that comes and goes changes nothing; one that alternates is told each time it is seen.
func TestFlaps(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, changed func() []string) {
		z.set("a", "192.0.2.1")
		r.Follow("a")
		changed()
		for i := range 10 {
			if i%2 == 0 {
				z.set("a")
			} else {
				z.set("a", "192.0.2.1")
			}
			time.Sleep(5 * time.Second)
		}
		if got := changed(); len(got) > 0 {
			t.Errorf("changed %v while it came and went", got)
		}
		want(t, r, "a", true, "192.0.2.1")
	})
}

// TestSlow: a name server that does not answer delays a new name for its deadline, and no other name, even where
// more names hang than may be looked up at once.
func TestSlow(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, changed func() []string) {
		z.slow["hangs"] = true
		z.set("quick", "192.0.2.1")
		r.Follow("hangs")
		r.Follow("quick")
		changed()
		want(t, r, "quick", true, "192.0.2.1")
		want(t, r, "hangs", false)
		time.Sleep(2*time.Second + time.Millisecond)
		changed()
		want(t, r, "hangs", true)
	})
}

// TestForget: names that nobody has any more are asked for no longer, and nothing is told of them; also of one whose
// answer is on its way.
func TestForget(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, changed func() []string) {
		z.set("a", "192.0.2.1")
		z.set("b", "192.0.2.2")
		z.slow["c"] = true
		for _, n := range []string{"a", "b", "c"} {
			r.Follow(n)
		}
		changed()
		r.Unsaved()
		r.Forget("b")
		r.Forget("c")
		if got := r.Unsaved(); len(got) != 2 || got["b"] != nil || got["c"] != nil {
			t.Errorf("to be written: %v", got)
		}
		before := z.times("b")
		time.Sleep(time.Minute)
		if got := changed(); len(got) > 0 {
			t.Errorf("changed %v", got)
		}
		if z.times("b") != before || z.times("a") < 10 {
			t.Errorf("a was asked for %d times, b %d times after it was forgotten", z.times("a"), z.times("b")-before)
		}
		if got := r.Unresolved(); got != nil {
			t.Errorf("unresolved: %v", got)
		}
		want(t, r, "b", false) // it is to be asked for anew
	})
}
