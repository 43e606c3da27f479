package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
)

// paged is an xDS server that reports in pages.
type paged struct {
	tb    testing.TB
	pages *status.Pages
	head  status.XdsStatus
}

func newPaged(tb testing.TB, id string, revision int64, envoys int) *paged {
	p := &paged{tb: tb, pages: status.NewPages(id, "1"), head: status.XdsStatus{
		ID: id, Epoch: "e", Revision: revision, StartedAt: "1", Live: map[string]int64{"default": revision},
		Connected: map[string]int32{"default": int32(envoys)},
	}}
	for i := range envoys {
		p.pages.Put(fmt.Sprint(i), p.envoy(i))
	}
	return p
}

func (p *paged) envoy(i int) status.ProxyStatus {
	return status.ProxyStatus{
		ID: fmt.Sprintf("%s-%04d", p.head.ID, i), Gateway: "default",
		Address: fmt.Sprintf("h%d:1", i), OverLimit: i == 1,
	}
}

// lag has one of its Envoys lag.
func (p *paged) lag(i int, applied int64, since time.Time, sent bool) {
	e := p.envoy(i)
	p.head.Lagging = append(p.head.Lagging, status.LaggingEnvoy{
		ID: e.ID, Gateway: e.Gateway, Address: e.Address, AppliedRevision: applied, Since: resource.Time(since),
		Resource: "Cluster web", Sent: sent,
	})
	p.head.Live = map[string]int64{"default": applied}
	p.head.Rest = map[string]int64{"default": p.head.Revision}
}

// say has a board take pages and report, without the pages that are lost.
func (p *paged) say(b *live.Board, lost bool) (missing bool) {
	p.tb.Helper()
	messages, err := p.pages.Say()
	if err != nil {
		p.tb.Fatal(err)
	}
	for _, m := range messages {
		var page status.XdsPage
		if err := json.Unmarshal(m.Data, &page); err != nil {
			p.tb.Fatal(err)
		}
		if !lost {
			b.Page(page, true)
		}
	}
	p.head.Number++
	p.head.Pages, p.head.At = p.pages.Digest(), resource.Time(time.Now())
	return b.Report(p.head, true)
}

// TestWaitingFor: who waits is told which Envoys it waits for, what they lack and since when, the longest first; those
// that are waited for are not those of other gateways, nor those that have what is waited for.
func TestWaitingFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := live.NewBoard(time.Now)
		a, other := newPaged(t, "a", 7, 3), newPaged(t, "b", 7, 1)
		since := time.Now().Add(-time.Minute)
		a.lag(1, 6, since.Add(time.Second), false)
		a.lag(2, 3, since, true)
		a.say(b, false)
		other.say(b, false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l := b.Wait(ctx, target(7))
		if l.State != "timeout" || len(l.WaitingFor) != 2 || l.WaitingFor[0].ID != "a-0002" || l.WaitingFor[0].Xds != "a" ||
			l.WaitingFor[0].AppliedRevision != 3 || l.Proxies != 4 {
			t.Errorf("%+v", l)
		}
		if want := "Envoy a-0002 (h2:1) of gateway default serves revision 3: it has not answered Cluster web, and is " +
			"waited for since " + resource.Time(since) + " (and 1 more)"; l.Reason != want {
			t.Errorf("%q, want %q", l.Reason, want)
		}
		if l := b.Now(target(6)); l.State != "pending" || len(l.WaitingFor) != 1 || l.WaitingFor[0].ID != "a-0002" {
			t.Errorf("for an older revision: %+v", l)
		}
		edge := target(7)
		edge.Gateways = []string{"edge"}
		if l := b.Now(edge); len(l.WaitingFor) > 0 {
			t.Errorf("of another gateway: %+v", l)
		}
		sum := b.Summary()
		if sum.Live != 3 || sum.Proxies != 4 || len(sum.Lagging) != 2 || sum.Lagging[0].ID != "a-0002" ||
			sum.Servers[0].LiveRevision != 3 || sum.Servers[1].LiveRevision != 7 {
			t.Errorf("%+v", sum)
		}
		a.head.Lagging, a.head.Rest, a.head.Live = nil, nil, map[string]int64{"default": 7}
		a.say(b, false)
		if l := b.Now(target(7)); !l.Live || len(l.WaitingFor) > 0 {
			t.Errorf("when they have answered: %+v", l)
		}
	})
}

// TestNotWhole: what a report says is not enough where a page of it was lost: it may have been the refusal without
// which the revision would not count as served.
func TestNotWhole(t *testing.T) {
	b := live.NewBoard(time.Now)
	a := newPaged(t, "a", 6, 1)
	if a.say(b, false) {
		t.Error("nothing was lost")
	}
	a.pages.Put("refused", status.RejectedResource{
		Gateway: "default", Resource: "Cluster web", Reason: "why",
		Objects: []status.ObjectRef{{Kind: hello.Kind, Name: hello.Name, Revision: 7}},
	})
	a.head.Revision, a.head.Live = 7, map[string]int64{"default": 7}
	if !a.say(b, true) {
		t.Error("a page was lost")
	}
	if l := b.Now(target(7)); l.State != "pending" || !strings.Contains(l.Reason, "on its way") {
		t.Errorf("%+v", l)
	}
	for _, m := range a.pages.Again(1) {
		var page status.XdsPage
		if err := json.Unmarshal(m.Data, &page); err != nil {
			t.Fatal(err)
		}
		b.Page(page, false)
	}
	b.Pages("a", map[int32]bool{0: true})
	if l := b.Now(target(7)); l.State != "rejected" || l.Reason != "why" {
		t.Errorf("when it has come: %+v", l)
	}
}

// TestProxies: all Envoys are listed once, page by page, whatever the size of a page, with those that are gone where
// they belong, with what they serve; and each filter lets through what it says.
func TestProxies(t *testing.T) {
	b := live.NewBoard(time.Now)
	a, other := newPaged(t, "a", 7, 5), newPaged(t, "b", 7, 3)
	a.say(b, false)
	other.say(b, false)
	a.pages.Delete("3")
	a.head.Connected = map[string]int32{"default": 4}
	a.lag(2, 3, time.Now().Add(-time.Minute), true)
	a.say(b, false)
	const all = "a-0000 7, a-0001 7 surplus, a-0002 3 lacks Cluster web, a-0003 7 gone, a-0004 7, b-0000 7, b-0001 7 " +
		"surplus, b-0002 7"
	list := func(f live.Filter) string {
		var out []string
		for range 20 {
			items, next, total := b.Proxies(f)
			for _, p := range items {
				s := fmt.Sprint(p.ID, " ", p.AppliedRevision)
				if p.Surplus && p.Connected {
					s += " surplus"
				}
				if p.Lacks != "" {
					s += " lacks " + p.Lacks
				}
				if !p.Connected {
					s += " gone"
				}
				out = append(out, s)
			}
			if f.Limit > 0 && len(items) > f.Limit || total < len(items) {
				t.Fatalf("%d of %d", len(items), total)
			}
			if f.After = next; next == "" {
				break
			}
		}
		return strings.Join(out, ", ")
	}
	for limit := range 10 {
		if got := list(live.Filter{Limit: limit}); got != all {
			t.Errorf("by %d: %s", limit, got)
		}
	}
	for state, want := range map[string]string{
		"connected": strings.Replace(all, ", a-0003 7 gone", "", 1), "absent": "a-0003 7 gone",
		"lagging": "a-0002 3 lacks Cluster web",
		"surplus": "a-0001 7 surplus, b-0001 7 surplus",
	} {
		for limit := range 3 {
			if got := list(live.Filter{State: state, Limit: limit}); got != want {
				t.Errorf("%s by %d: %s, want %s", state, limit, got, want)
			}
		}
	}
	if got := list(live.Filter{Gateway: "edge"}); got != "" {
		t.Errorf("of another gateway: %s", got)
	}
	if c := b.Counts()["default"]; c != (status.Count{Proxies: 7, OverLimit: 2}) {
		t.Errorf("%+v", c)
	}
}

// BenchmarkBoard is what a report costs of which somebody waits, and what the status costs, however many Envoys there
// are.
func BenchmarkBoard(b *testing.B) {
	for _, n := range []int{10, 1000, 5000} {
		board := live.NewBoard(time.Now)
		p := newPaged(b, "a", 7, n)
		p.say(board, false)
		b.Run(fmt.Sprintf("report/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.head.Number++
				board.Report(p.head, true)
				if l := board.Now(target(7)); !l.Live {
					b.Fatal(l)
				}
			}
		})
		b.Run(fmt.Sprintf("status/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if sum := board.Summary(); sum.Proxies != int32(n) {
					b.Fatal(sum)
				}
			}
		})
	}
}

// TestRejectedIsBounded: with thousands of refusals the status lists some, and their number; each is found.
func TestRejectedIsBounded(t *testing.T) {
	b := live.NewBoard(time.Now)
	a := newPaged(t, "a", 7, 1)
	for i := range 5000 {
		a.pages.Put(fmt.Sprint("r", i), status.RejectedResource{
			Gateway: "default", Resource: fmt.Sprintf("Cluster c%04d", i),
			Reason: fmt.Sprint("why ", i), Objects: []status.ObjectRef{{
				Kind: hello.Kind, Name: fmt.Sprint("c", i),
				Revision: 7,
			}},
		})
	}
	a.say(b, false)
	sum := b.Summary()
	if len(sum.Rejected) != 100 || sum.RejectedObjects != 5000 || !slices.IsSortedFunc(sum.Rejected,
		func(x, y api.Rejection) int { return strings.Compare(x.Resource, y.Resource) }) {
		t.Errorf("%d listed of %d", len(sum.Rejected), sum.RejectedObjects)
	}
	x := target(7)
	x.Objects = map[resource.Ref]int64{{Kind: hello.Kind, Name: "c4711"}: 7}
	if l := b.Now(x); l.State != "rejected" || l.Reason != "why 4711" {
		t.Errorf("%+v", l)
	}
}
