package live_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
)

// unresolved is a server's report with names that have no address.
func unresolved(id string, proxies int, names ...string) status.XdsStatus {
	s := report(id, 7, 7, proxies)
	s.Unresolved = names
	return s
}

// words is its report of what is wrong with a name.
func words(id, host string, addresses int32) status.NamesStatus {
	return status.NamesStatus{ID: id, Names: []status.NameStatus{{
		Host: host, Problem: status.NameNotFound, Reason: "does not exist (NXDOMAIN)", Addresses: addresses,
		Since: "2026-01-01T00:00:00Z", Services: []string{"web"},
	}}}
}

// TestNamesAreWaitedFor: a write waits for the names of its own services at the servers that have Envoys, and for no
// others; the answer says which one, in the server's words where they have come.
func TestNamesAreWaitedFor(t *testing.T) {
	with := func(names map[string]string) live.Target {
		x := target(7)
		x.Names = names
		return x
	}
	db := with(map[string]string{"db.test": "web"})
	for name, c := range map[string]struct {
		reports []status.XdsStatus
		words   []status.NamesStatus
		target  live.Target
		state   string
		says    string // "" for no reason
	}{
		"resolved": {[]status.XdsStatus{unresolved("a", 1)}, nil, db, "live", ""},
		"without an address": {
			[]status.XdsStatus{unresolved("a", 1, "db.test")},
			nil, db, "pending",
			"service web waits for a name, and keeps the endpoints that it had: db.test has not been answered",
		},
		"and why": {
			[]status.XdsStatus{unresolved("a", 1, "db.test")},
			[]status.NamesStatus{words("a", "db.test", 0)},
			db, "pending", "db.test does not exist (NXDOMAIN), " +
				"since 2026-01-01",
		},
		"another write": {
			[]status.XdsStatus{unresolved("a", 1, "db.test")},
			[]status.NamesStatus{words("a", "db.test", 0)},
			target(7), "live", "",
		},
		"another name": {[]status.XdsStatus{unresolved("a", 1, "other.test")}, nil, db, "live", ""},
		"with its last addresses": {
			[]status.XdsStatus{unresolved("a", 1)},
			[]status.NamesStatus{words("a", "db.test", 2)},
			db, "live", "db.test does not exist (NXDOMAIN), since " +
				"2026-01-01T00:00:00Z; its last addresses are served",
		},
		"at one of two servers": {
			[]status.XdsStatus{unresolved("a", 1), unresolved("b", 1, "db.test")},
			nil, db,
			"pending", "db.test",
		},
		"at one without Envoys": {
			[]status.XdsStatus{unresolved("a", 1), unresolved("b", 0, "db.test")},
			nil,
			db, "live", "",
		},
		"without any Envoy": {
			[]status.XdsStatus{unresolved("a", 0, "db.test")},
			nil, db,
			"no_proxies", "db.test",
		},
		"two names": {
			[]status.XdsStatus{unresolved("a", 1, "db.test", "x.test")},
			nil,
			with(map[string]string{"db.test": "web", "x.test": "web"}), "pending", "(and 1 more)",
		},
		"before the server has read it": {
			[]status.XdsStatus{{ID: "a", Epoch: "e", Revision: 6, Unresolved: []string{"db.test"}}},
			nil, db, "pending",
			"has not read the revision yet",
		},
		"what a server said that is gone": {
			[]status.XdsStatus{unresolved("a", 1)},
			[]status.NamesStatus{words("b", "db.test", 2)},
			db, "live", "",
		},
		"what a server said before it went": {
			[]status.XdsStatus{unresolved("a", 1)},
			[]status.NamesStatus{words("a", "db.test", 2), {ID: "a", Stopping: true}},
			db, "live", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := live.NewBoard(time.Now)
			for _, r := range c.reports {
				b.Report(r, true)
			}
			for _, r := range c.words {
				b.ReportNames(r, true)
			}
			l := b.Now(c.target)
			if l.State != c.state || (c.says == "") != (l.Reason == "") || !strings.Contains(l.Reason, c.says) {
				t.Errorf("%+v, want %s, %q", l, c.state, c.says)
			}
		})
	}
}

// TestNameComes: who waits is answered when the name has an address and the Envoys have it.
func TestNameComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := live.NewBoard(time.Now)
		b.Report(unresolved("a", 1, "db.test"), true)
		x := target(7)
		x.Names = map[string]string{"db.test": "web"}
		answers := make(chan api.Live, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go func() { answers <- b.Wait(ctx, x) }()
		time.Sleep(1500 * time.Millisecond)
		resolved := unresolved("a", 1)
		resolved.Live["default"] = 6 // its Envoys are being told
		b.Report(resolved, true)
		synctest.Wait()
		select {
		case l := <-answers:
			t.Fatalf("%+v before the Envoys have the addresses", l)
		default:
		}
		b.Report(unresolved("a", 1), true)
		if l := <-answers; !l.Live || l.WaitedMS != 1500 {
			t.Errorf("%+v", l)
		}
		b.Report(unresolved("a", 1, "db.test"), true)
		if l := b.Wait(ctx, x); l.State != "timeout" || !strings.Contains(l.Reason, "db.test") {
			t.Errorf("%+v", l)
		}
	})
}

// TestNamesListed: each name once, as the server has it that has the fewest addresses; so many at most, and their
// number.
func TestNamesListed(t *testing.T) {
	b := live.NewBoard(time.Now)
	b.Report(unresolved("a", 1), true)
	b.Report(unresolved("b", 1, "db.test"), true)
	b.ReportNames(words("a", "db.test", 2), true)
	b.ReportNames(words("b", "db.test", 0), true)
	if list, n := b.Names(100); n != 1 || len(list) != 1 || list[0].Xds != "b" || list[0].Addresses != 0 ||
		list[0].Problem != "not_found" || list[0].Services[0] != "web" {
		t.Errorf("%d: %+v", n, list)
	}
	var many status.NamesStatus
	many.ID = "a"
	for i := range 250 {
		many.Names = append(many.Names, status.NameStatus{Host: fmt.Sprintf("n%03d.test", i)})
	}
	b.ReportNames(many, true)
	if list, n := b.Names(100); n != 251 || len(list) != 100 || list[1].Host != "n000.test" {
		t.Errorf("%d, %d of them listed", n, len(list))
	}
}
