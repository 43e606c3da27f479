package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
)

// say is the only trouble there is, in short.
func say(t *testing.T, r *resolver.Resolver) string {
	t.Helper()
	synctest.Wait()
	all := r.Troubles()
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s, %d kept, of %d", all[0].Host, all[0].Problem, all[0].Addresses, len(all))
}

// TestTroubles: what is wrong with a name is said as what it is, from when it began, and no longer when it resolves.
func TestTroubles(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, _ func() []string) {
		z.slow["a"] = true
		r.Follow("a")
		if got := say(t, r); got != "a pending, 0 kept, of 1" {
			t.Errorf("at first: %s", got)
		}
		if got := r.Unresolved(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("unresolved: %v", got)
		}
		time.Sleep(2*time.Second + time.Millisecond)
		if got := say(t, r); got != "a timeout, 0 kept, of 1" {
			t.Errorf("past the deadline: %s", got)
		}
		z.change(func() { z.slow["a"] = false; z.answers["a"] = []string{"192.0.2.1", "192.0.2.2"} })
		time.Sleep(15 * time.Second)
		if got := say(t, r); got != "" || r.Unresolved() != nil {
			t.Errorf("it resolves: %s, %v", got, r.Unresolved())
		}
		for problem, err := range map[status.Problem]error{
			status.NameNotFound: resolver.ErrNotFound, status.NameNoAddresses: resolver.ErrNoAddresses,
			status.NameTimeout: context.DeadlineExceeded,
			status.NameFailed:  errors.New("DNS server 192.0.2.53:53 answers SERVFAIL"),
		} {
			z.change(func() { z.answers["a"], z.errs["a"] = nil, err })
			time.Sleep(6 * time.Second)
			if got := say(t, r); got != fmt.Sprintf("a %s, 2 kept, of 1", problem) {
				t.Errorf("%v: %s", err, got)
			}
			began := r.Troubles()[0].Since
			time.Sleep(time.Minute)
			if got := r.Troubles()[0]; !got.Since.Equal(began) ||
				(problem == status.NameFailed && !strings.Contains(got.Reason, "SERVFAIL")) {
				t.Errorf("a minute later, since %s: %+v", began, got)
			}
			want(t, r, "a", true, "192.0.2.1", "192.0.2.2")
			if r.Unresolved() != nil {
				t.Errorf("it has addresses, and counts as unresolved")
			}
		}
		z.change(func() { z.answers["a"] = []string{"192.0.2.1"} })
		time.Sleep(6 * time.Second)
		if got := say(t, r); got != "" {
			t.Errorf("it resolves again: %s", got)
		}
	})
}

// TestRestore: the addresses of an earlier life count when the first lookup fails or is late, and not before: they
// may be old. A fresh answer takes their place.
func TestRestore(t *testing.T) {
	for how, c := range map[string]struct {
		prepare func(z *zone)
		after   time.Duration
		addr    string
	}{
		"DNS fails at once": {func(*zone) {}, 0, "192.0.2.1"},
		"DNS is silent":     {func(z *zone) { z.slow["a"] = true }, 2*time.Second + time.Millisecond, "192.0.2.1"},
		"DNS answers":       {func(z *zone) { z.answers["a"] = []string{"192.0.2.9"} }, 0, "192.0.2.9"},
	} {
		t.Run(how, func(t *testing.T) {
			runAfter(t, func(z *zone, r *resolver.Resolver) {
				c.prepare(z)
				r.Follow("a")
				time.Sleep(time.Minute) // so long may it take to build everything, and until then nobody asks
				r.Restore(map[string][]netip.Addr{
					"a": {netip.MustParseAddr("192.0.2.1")}, "gone": {netip.MustParseAddr("192.0.2.2")},
				})
				want(t, r, "a", false)
			}, func(_ *zone, r *resolver.Resolver, changed func() []string) {
				time.Sleep(c.after)
				if got := changed(); !slices.Equal(got, []string{"a"}) {
					t.Errorf("changed %v", got)
				}
				want(t, r, "a", true, c.addr)
				if r.Unresolved() != nil {
					t.Errorf("unresolved: %v", r.Unresolved())
				}
				if dropped, there := r.Unsaved()["gone"]; !there || dropped != nil {
					t.Error("what nobody follows stays on disk")
				}
			})
		})
	}
}

// TestSoonAgain: a name without addresses is asked for again within a second, and less often as time goes by.
func TestSoonAgain(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, _ func() []string) {
		r.Follow("a")
		time.Sleep(500 * time.Millisecond)
		z.set("a", "192.0.2.1")
		time.Sleep(time.Second)
		want(t, r, "a", true, "192.0.2.1")
		r.Follow("never")
		time.Sleep(time.Minute)
		if n := z.times("never"); n < 10 || n > 16 {
			t.Errorf("a name that does not exist was asked for %d times in a minute", n)
		}
	})
}

// TestSlowLane: names for which DNS is silent leave room for those for which it is not, however many they are; a new
// name is not late because of them.
func TestSlowLane(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, changed func() []string) {
		for i := range 100 {
			z.change(func() { z.slow[fmt.Sprint("hangs", i)] = true })
			r.Follow(fmt.Sprint("hangs", i))
		}
		time.Sleep(20 * time.Minute) // every one of them has failed
		changed()
		for i := range 20 {
			host := fmt.Sprint("new", i)
			z.set(host, "192.0.2.1")
			r.Follow(host)
			synctest.Wait()
			want(t, r, host, true, "192.0.2.1")
		}
	})
}

// TestHalfAnAnswer: where only the addresses of one family could be asked for, those of the other stay.
func TestHalfAnAnswer(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, _ func() []string) {
		z.set("a", "192.0.2.1", "2001:db8::1")
		r.Follow("a")
		time.Sleep(time.Second)
		z.change(func() { z.answers["a"], z.parts["a"] = []string{"2001:db8::2"}, errors.New("SERVFAIL for A") })
		time.Sleep(6 * time.Second)
		want(t, r, "a", true, "192.0.2.1", "2001:db8::2")
		if got := say(t, r); got != "a failed, 2 kept, of 1" {
			t.Error(got)
		}
		z.change(func() { z.parts["a"] = nil })
		time.Sleep(6 * time.Second)
		want(t, r, "a", true, "2001:db8::2")
		z.change(func() { z.parts["a"] = errors.New("SERVFAIL for A, always") })
		time.Sleep(6 * time.Second)
		want(t, r, "a", true, "2001:db8::2")
		if got := say(t, r); got != "" {
			t.Errorf("nothing of it is missing: %s", got)
		}
	})
}
