package resolver_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
)

var errNoSuchHost = errors.New("no such host")

// zone is a name server whose answers a test decides.
type zone struct {
	mu      sync.Mutex
	answers map[string][]string // nil fails
	slow    map[string]bool     // never answers
	asked   map[string]int
}

func (z *zone) set(host string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.answers[host] = addrs
}

func (z *zone) lookup(ctx context.Context, _, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked[host]++
	slow, texts := z.slow[host], z.answers[host]
	z.mu.Unlock()
	if slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if texts == nil {
		return nil, errNoSuchHost
	}
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out, nil
}

// run starts a resolver in a bubble of its own time; changed lists the names whose addresses have changed.
func run(t *testing.T, f func(z *zone, r *resolver.Resolver, changed func() []string)) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{answers: map[string][]string{}, slow: map[string]bool{}, asked: map[string]int{}}
		var mu sync.Mutex
		var names []string
		r := resolver.New(resolver.Options{Lookup: z.lookup, Parallel: 4, Log: zap.NewNop()}, func(n []string) {
			mu.Lock()
			defer mu.Unlock()
			names = append(names, n...)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
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
		want(t, r, "was", false)
		want(t, r, "never", false)
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
		r.Resolve("a")
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
		r.Resolve("hangs")
		r.Resolve("quick")
		changed()
		want(t, r, "quick", true, "192.0.2.1")
		want(t, r, "hangs", false)
		time.Sleep(2*time.Second + time.Millisecond)
		changed()
		want(t, r, "hangs", true)
	})
}

// TestKeep: names that nobody has any more are forgotten, and asked for no longer; also one whose answer is on its
// way.
func TestKeep(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, changed func() []string) {
		z.set("a", "192.0.2.1")
		z.set("b", "192.0.2.2")
		z.slow["c"] = true
		for _, n := range []string{"a", "b", "c"} {
			r.Resolve(n)
		}
		changed()
		r.Keep(func(host string) bool { return host == "a" })
		z.mu.Lock()
		before := z.asked["b"]
		z.mu.Unlock()
		time.Sleep(time.Minute)
		if got := changed(); len(got) > 0 {
			t.Errorf("changed %v", got)
		}
		z.mu.Lock()
		if z.asked["b"] != before || z.asked["a"] < 10 {
			t.Errorf("asked %v", z.asked)
		}
		z.mu.Unlock()
		if !r.Any() {
			t.Error("no name is followed")
		}
		r.Keep(func(string) bool { return false })
		if r.Any() {
			t.Error("names are followed that nobody has")
		}
		want(t, r, "b", false) // asked for anew
	})
}
