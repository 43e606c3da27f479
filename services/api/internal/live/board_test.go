package live_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
)

var hello = resource.Ref{Kind: resource.KindRoute, Name: "hello"}

func target(rev int64) live.Target {
	return live.Target{
		Epoch: "e", Revision: rev, Gateways: []string{"default"},
		Objects: map[resource.Ref]int64{hello: rev},
	}
}

// report is one server's, with an Envoy where proxies says so.
func report(id string, rev, served int64, proxies int) status.XdsStatus {
	s := status.XdsStatus{ID: id, Epoch: "e", Revision: rev, Live: map[string]int64{"default": served}}
	for i := range proxies {
		s.Proxies = append(s.Proxies, status.ProxyStatus{
			ID: id + "-envoy", Gateway: "default",
			Address: fmt.Sprintf("h%d:1", i), AppliedRevision: served,
		})
	}
	return s
}

// TestJudge: when a revision is live, by what the servers say.
func TestJudge(t *testing.T) {
	refused := func(rev int64, name string) status.XdsStatus {
		s := report("a", 7, 7, 1)
		s.Rejected = []status.RejectedResource{{
			Gateway: "default", Reason: "why",
			Objects: []status.ObjectRef{{Kind: hello.Kind, Name: name, Revision: rev}},
		}}
		return s
	}
	other := report("a", 7, 7, 1)
	other.Epoch = "before the restore"
	elsewhere := report("a", 7, 7, 1)
	elsewhere.Proxies[0].Gateway = "edge"
	for name, c := range map[string]struct {
		reports []status.XdsStatus
		state   string
	}{
		"nobody reports":                       {nil, "pending"},
		"no envoy":                             {[]status.XdsStatus{report("a", 7, 7, 0)}, "no_proxies"},
		"an envoy of another gateway":          {[]status.XdsStatus{elsewhere}, "no_proxies"},
		"live":                                 {[]status.XdsStatus{report("a", 7, 7, 1)}, "live"},
		"a later one is":                       {[]status.XdsStatus{report("a", 9, 8, 1)}, "live"},
		"the server has not read it":           {[]status.XdsStatus{report("a", 6, 6, 1)}, "pending"},
		"its envoys have not all confirmed":    {[]status.XdsStatus{report("a", 7, 6, 2)}, "pending"},
		"one of two servers has not read it":   {[]status.XdsStatus{report("a", 7, 7, 1), report("b", 6, 6, 1)}, "pending"},
		"also where it has no envoys":          {[]status.XdsStatus{report("a", 7, 7, 1), report("b", 6, 6, 0)}, "pending"},
		"another life of the database":         {[]status.XdsStatus{other}, "pending"},
		"refused":                              {[]status.XdsStatus{refused(7, "hello")}, "rejected"},
		"refused by one of two":                {[]status.XdsStatus{refused(7, "hello"), report("b", 7, 7, 1)}, "rejected"},
		"an earlier version of it was refused": {[]status.XdsStatus{refused(6, "hello")}, "live"},
		"something else was refused":           {[]status.XdsStatus{refused(7, "other")}, "live"},
		"the later report of a server counts":  {[]status.XdsStatus{report("a", 6, 6, 1), report("a", 7, 7, 1)}, "live"},
		"a server that stops is asked no more": {[]status.XdsStatus{
			report("a", 7, 7, 1), report("b", 6, 6, 0),
			{ID: "b", Stopping: true},
		}, "live"},
		"a gateway that the server has not got": {[]status.XdsStatus{{ID: "a", Epoch: "e", Revision: 7}}, "no_proxies"},
	} {
		t.Run(name, func(t *testing.T) {
			b := live.NewBoard(time.Now)
			for _, r := range c.reports {
				b.Report(r, true)
			}
			if l := b.Now(target(7)); l.State != c.state || l.Live != (c.state == "live") {
				t.Errorf("%+v, want %s", l, c.state)
			}
		})
	}
}

// TestWait: the answer comes with the report that makes it so, or when the time is over, with the reason.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := live.NewBoard(time.Now)
		b.Report(report("a", 6, 6, 1), true)
		answers := make(chan api.Live, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go func() { answers <- b.Wait(ctx, target(7)) }()
		time.Sleep(1500 * time.Millisecond)
		b.Report(report("a", 7, 6, 1), true)
		synctest.Wait()
		select {
		case l := <-answers:
			t.Fatalf("%+v before the Envoy has confirmed", l)
		default:
		}
		b.Report(report("a", 7, 7, 1), true)
		if l := <-answers; !l.Live || l.WaitedMS != 1500 {
			t.Errorf("%+v", l)
		}
		if l := b.Wait(ctx, target(8)); l.State != "timeout" || l.Reason == "" {
			t.Errorf("%+v", l)
		}
	})
}

// TestReturn: an Envoy whose server was restarted, has stopped or is silent still serves, and is waited
// for, here or at another server; one that went by itself is not.
func TestReturn(t *testing.T) {
	life := func(s status.XdsStatus, started string) status.XdsStatus {
		s.StartedAt = started
		return s
	}
	other := report("b", 7, 7, 1)
	other.Proxies[0].ID, other.Proxies[0].ConnectedAt = "a-envoy", "later"
	for name, c := range map[string]struct {
		reports []status.XdsStatus
		state   string
	}{
		"restarted": {[]status.XdsStatus{
			life(report("a", 6, 6, 1), "1"),
			life(report("a", 7, 7, 0), "2"),
		}, "pending"},
		"restarted, and back": {[]status.XdsStatus{
			life(report("a", 6, 6, 1), "1"),
			life(report("a", 7, 7, 0), "2"), life(report("a", 7, 7, 1), "2"),
		}, "live"},
		"restarted, and back at once": {[]status.XdsStatus{
			life(report("a", 6, 6, 1), "1"),
			life(report("a", 7, 7, 1), "2"),
		}, "live"},
		"restarted, one of two back": {[]status.XdsStatus{
			life(report("a", 6, 6, 2), "1"),
			life(report("a", 7, 7, 1), "2"),
		}, "pending"},
		"stopped": {[]status.XdsStatus{
			report("a", 6, 6, 1),
			{ID: "a", Stopping: true},
			report("b", 7, 7, 0),
		}, "pending"},
		"stopped, and back elsewhere": {
			[]status.XdsStatus{report("a", 6, 6, 1), {ID: "a", Stopping: true}, other},
			"live",
		},
		"another one is no substitute": {[]status.XdsStatus{
			report("a", 6, 6, 1),
			{ID: "a", Stopping: true},
			report("b", 7, 7, 1),
		}, "pending"},
		"the Envoy went": {[]status.XdsStatus{report("a", 6, 6, 1), report("a", 7, 7, 0)}, "no_proxies"},
		"one of two went, and then restart": {[]status.XdsStatus{
			life(report("a", 6, 6, 2), "1"),
			life(report("a", 6, 6, 1), "1"), life(report("a", 7, 7, 1), "2"),
		}, "live"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := live.NewBoard(time.Now)
				for _, r := range c.reports {
					b.Report(r, true)
				}
				if l := b.Now(target(7)); l.State != c.state {
					t.Errorf("%+v, want %s", l, c.state)
				}
				time.Sleep(live.Return + time.Millisecond)
				last := c.reports[len(c.reports)-1]
				b.Report(last, true)
				if l := b.Now(target(7)); l.State == "pending" {
					t.Errorf("after %s: %+v", live.Return, l)
				}
			})
		})
	}
}

// TestSilent: a server that is silent for three heartbeats is gone, and its Envoys are when their time to
// come back is over.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := live.NewBoard(time.Now)
		b.Report(report("dead", 6, 6, 1), true)
		time.Sleep(status.Stale)
		b.Report(report("a", 7, 7, 1), true)
		if l := b.Now(target(7)); l.State != "pending" {
			t.Errorf("%+v while it may still live", l)
		}
		time.Sleep(time.Millisecond)
		if sum := b.Summary(); len(sum.Servers) != 1 {
			t.Errorf("servers %+v", sum.Servers)
		}
		if l := b.Now(target(7)); l.State != "pending" {
			t.Errorf("%+v while its Envoy may come back", l)
		}
		time.Sleep(live.Return - status.Stale)
		b.Report(report("a", 7, 7, 1), true)
		if l := b.Now(target(7)); !l.Live || l.Proxies != 1 {
			t.Errorf("%+v", l)
		}
	})
}
