package live_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
)

// with is a report with Envoys, each NAME@HOST:PORT.
func with(id string, rev int64, envoys ...string) status.XdsStatus {
	s := report(id, rev, rev, 0)
	for _, e := range envoys {
		name, address, _ := strings.Cut(e, "@")
		s.Proxies = append(s.Proxies, status.ProxyStatus{
			ID: name, Gateway: "default", Address: address, AppliedRevision: rev,
			ConnectedAt: address,
		})
	}
	return s
}

// absent lists who the board says is gone.
func absent(b *live.Board) string {
	var out []string
	for _, p := range gone(b) {
		if p.Connected || p.LastSeenAt == "" {
			out = append(out, fmt.Sprintf("%+v", p))
			continue
		}
		out = append(out, fmt.Sprintf("%s@%s at %d", p.ID, p.Address, p.AppliedRevision))
	}
	return strings.Join(out, ", ")
}

func gone(b *live.Board) []api.Proxy {
	list, _, _ := b.Proxies(live.Filter{State: "absent"})
	return list
}

// TestAbsent: an Envoy that stopped is known by name, with what it served last, until it is back, wherever that is.
func TestAbsent(t *testing.T) {
	for name, c := range map[string]struct {
		reports []status.XdsStatus
		want    string
	}{
		"nobody has gone": {[]status.XdsStatus{with("a", 6, "one@h1:1")}, ""},
		"it stopped":      {[]status.XdsStatus{with("a", 6, "one@h1:1"), with("a", 7)}, "one@h1:1 at 6"},
		"it came back": {
			[]status.XdsStatus{with("a", 6, "one@h1:1"), with("a", 7), with("a", 7, "one@h1:2")},
			"",
		},
		"it came back at once": {[]status.XdsStatus{with("a", 6, "one@h1:1"), with("a", 7, "one@h1:2")}, ""},
		"a new container of its name": {
			[]status.XdsStatus{with("a", 6, "one@h1:1"), with("a", 7), with("a", 7, "one@h2:1")},
			"",
		},
		"another one is no substitute": {
			[]status.XdsStatus{with("a", 6, "one@h1:1"), with("a", 7), with("a", 7, "two@h1:1")},
			"one@h1:1 at 6",
		},
		"one name, two hosts": {[]status.XdsStatus{
			with("a", 6, "one@h1:1", "one@h2:1"), with("a", 7),
			with("a", 7, "one@h2:2"),
		}, "one@h1:1 at 6"},
		"it went to another server": {[]status.XdsStatus{
			with("a", 6, "one@h1:1"), with("b", 6), with("a", 7),
			with("b", 7, "one@h1:2"),
		}, ""},
		"which was heard first": {
			[]status.XdsStatus{with("a", 6, "one@h1:1"), with("b", 7, "one@h1:2"), with("a", 7)},
			"",
		},
		"its server stopped": {
			[]status.XdsStatus{with("a", 6, "one@h1:1"), {ID: "a", Stopping: true}},
			"one@h1:1 at 6",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := live.NewBoard(time.Now)
			for _, r := range c.reports {
				b.Report(r, true)
			}
			if got := absent(b); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestAbsentInAnswers: the answer to wait=live names who is gone, and still waits for those that are there alone.
func TestAbsentInAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := live.NewBoard(time.Now)
		b.Report(with("a", 6, "one@h1:1", "two@h2:1"), true)
		gone := resource.Time(time.Now())
		b.Report(with("a", 7, "two@h2:1"), true)
		l := b.Now(target(7))
		if !l.Live || l.Proxies != 1 || len(l.Absent) != 1 || l.Absent[0].ID != "one" || l.Absent[0].AppliedRevision != 6 ||
			l.Absent[0].LastSeenAt != gone {
			t.Errorf("%+v", l)
		}
		if want := "Envoy one of gateway default is not connected since " + gone + ", and not waited for"; l.Reason != want {
			t.Errorf("%q, want %q", l.Reason, want)
		}
		b.Report(with("a", 7), true)
		if l := b.Now(target(7)); l.State != "no_proxies" || len(l.Absent) != 2 ||
			!strings.Contains(l.Reason, "two of gateway default") {
			t.Errorf("%+v", l)
		}
		other := target(7)
		other.Gateways = []string{"edge"}
		if l := b.Now(other); len(l.Absent) > 0 || strings.Contains(l.Reason, "one") {
			t.Errorf("of another gateway: %+v", l)
		}
		time.Sleep(b.Keep + time.Second)
		if got := absent(b); got != "" {
			t.Errorf("after %s: %s", b.Keep, got)
		}
	})
}

// TestAbsentBounded: Envoys that have another name at each start do not fill the memory, nor the answer.
func TestAbsentBounded(t *testing.T) {
	b := live.NewBoard(time.Now)
	for k := range 3000 {
		b.Report(with("a", 7, fmt.Sprintf("e%d@h:1", k)), true)
	}
	b.Report(with("a", 7), true)
	if n := len(gone(b)); n != 1000 {
		t.Errorf("%d are remembered", n)
	}
	if l := b.Now(target(7)); len(l.Absent) != 20 || l.Absent[0].ID != "e2999" {
		t.Errorf("%d are named: %+v", len(l.Absent), l.Absent[0])
	}
}

// TestAbsentOfBefore: an api that was not there learns from an xDS server's report which Envoys are expected back, so
// that nothing is live, or without proxies, while they still serve something older; and who had gone.
func TestAbsentOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := live.NewBoard(time.Now)
		s := with("a", 7)
		s.Absent = []status.AbsentProxy{
			{
				Proxy:      status.ProxyStatus{ID: "back", Gateway: "default", AppliedRevision: 6},
				LastSeenAt: resource.Time(time.Now()), Awaited: true,
			},
			{
				Proxy:      status.ProxyStatus{ID: "gone", Gateway: "default", AppliedRevision: 5},
				LastSeenAt: resource.Time(time.Now()),
			},
		}
		b.Report(s, false)
		if l := b.Now(target(7)); l.State != "pending" || !strings.Contains(l.Reason, "back") {
			t.Errorf("%+v", l)
		}
		b.Report(with("a", 7, "back@h:1"), true)
		if l := b.Now(target(7)); !l.Live || len(l.Absent) != 1 || l.Absent[0].ID != "gone" {
			t.Errorf("%+v", l)
		}
	})
}

// TestClocks: a clock that is off is named with what it does, by two reports that agree.
func TestClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := live.NewBoard(time.Now)
		hear := func(ahead time.Duration, fresh bool) []string {
			at := resource.Time(time.Now().Add(ahead))
			b.ReportAgent(status.AgentStatus{ID: "n1", At: at, Envoy: "edge-1"}, fresh)
			s := with("a", 7)
			s.At = resource.Time(time.Now())
			b.Report(s, fresh)
			var out []string
			for _, x := range b.Troubles() {
				out = append(out, x.Part+": "+x.Reason)
			}
			return out
		}
		for _, c := range []struct {
			ahead time.Duration
			fresh bool
			want  string
		}{
			{-2 * time.Minute, false, ""},
			{0, true, ""},
			{time.Second, true, ""},
			{-40 * time.Second, true, ""},
			{0, true, ""}, // it was on its way for long
			{90 * time.Second, true, ""},
			{90 * time.Second, true, "node n1: its clock is 1m30s ahead of the api's, so that edge-1 accepts"},
			{-90 * time.Second, true, "node n1: its clock is 1m30s behind the api's"},
			{0, true, ""},
		} {
			got := hear(c.ahead, c.fresh)
			if (c.want == "") != (len(got) == 0) || !strings.HasPrefix(strings.Join(got, "\n"), c.want) {
				t.Errorf("%s ahead: %q, want %q", c.ahead, got, c.want)
			}
		}
		if o := b.Offsets(); len(o) != 2 || o["node n1"].Abs() > time.Second {
			t.Errorf("offsets %v", o)
		}
	})
}
