package live_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
)

// node is an agent whose Envoy does ten requests a second, by a clock of its own.
type node struct {
	id     string
	skew   time.Duration
	since  time.Time
	number int64
}

func (n *node) report(now time.Time, unhealthy ...status.UnhealthyEndpoint) status.AgentStatus {
	at := now.Add(n.skew)
	r := &status.EnvoyReport{At: resource.Time(at), Since: resource.Time(n.since), Unhealthy: unhealthy}
	n.number++
	for i := max(1, n.number-2); i <= n.number; i++ {
		r.Intervals = append(r.Intervals, status.Traffic{
			Number: i, Seconds: 10, Requests: 100, Answers: []int64{0, 90, 0, 6, 4}, Times: []int64{0, 50, 40, 10},
		})
	}
	return status.AgentStatus{ID: n.id, At: resource.Time(at), Envoy: "envoy-" + n.id, EnvoyGateway: "edge", EnvoyReport: r}
}

// TestTrafficIsCountedOnce: each interval of each Envoy is counted once, where the api's clock has it, though reports
// say it several times, come late or not at all, and clocks differ; and after ten minutes it is gone.
func TestTrafficIsCountedOnce(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 2e8, time.UTC)
	b := live.NewBoard(func() time.Time { return now })
	early, late := &node{id: "a", skew: -40 * time.Second, since: now}, &node{id: "b", skew: 3 * time.Minute, since: now}
	for i := range 12 {
		now = now.Add(10 * time.Second)
		for _, n := range []*node{early, late} {
			r := n.report(now)
			if i%3 == 1 {
				continue // it is lost, and the next one says it again
			}
			b.ReportAgent(r, true)
			b.ReportAgent(r, true)
			b.ReportAgent(r, false) // as a NATS that comes back has it
		}
	}
	s := b.Traffic()
	if len(s.Gateways) != 1 || s.Gateways[0].Gateway != "edge" || s.Gateways[0].Reporting != 2 {
		t.Fatalf("%+v", s.Gateways)
	}
	for _, g := range []api.GatewayTraffic{s.Gateways[0], s.Total} {
		if g.Requests != 2400 || g.Answers != (api.AnswerClasses{Success: 2160, ClientError: 144, ServerError: 96}) {
			t.Errorf("%d requests, %+v", g.Requests, g.Answers)
		}
		if len(g.Intervals) != 12 {
			t.Fatalf("%d intervals", len(g.Intervals))
		}
		for i, x := range g.Intervals {
			want := resource.Time(time.Date(2026, 11, 27, 12, 0, 10*i, 0, time.UTC))
			if x.Reports != 2 || x.Requests != 200 || x.At != want {
				t.Errorf("%d: %+v, want it at %s", i, x, want)
			}
		}
		// Half below 2 ms, 90 of 100 below 3, the rest below 5.
		if l := g.Latency; l == nil || l.P50 != 2 || l.P95 < 3 || l.P95 > 5 || l.P99 < l.P95 || l.P99 > 5 {
			t.Errorf("%+v", l)
		}
	}
	now = now.Add(11 * time.Minute)
	if s = b.Traffic(); s.Total.Requests != 0 || len(s.Total.Intervals) != 0 || len(s.Gateways) != 0 {
		t.Errorf("after eleven minutes: %+v", s)
	}
}

// TestTrafficOfOthersLives: an Envoy's agent that was started again counts from 1, and what an api finds that was kept
// from before is not taken for news.
func TestTrafficOfOthersLives(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 5, 0, time.UTC)
	b := live.NewBoard(func() time.Time { return now })
	n := &node{id: "a", since: now.Add(-time.Hour), number: 300}
	b.ReportAgent(n.report(now), false)
	if s := b.Traffic(); s.Total.Requests != 0 {
		t.Errorf("what was kept is counted: %+v", s.Total)
	}
	now = now.Add(10 * time.Second)
	b.ReportAgent(n.report(now), true)
	before := b.Traffic().Total.Requests
	now = now.Add(10 * time.Second)
	n.since, n.number = now, 0
	b.ReportAgent(n.report(now), true)
	if s := b.Traffic(); s.Total.Requests != before+100 {
		t.Errorf("%d requests after %d", s.Total.Requests, before)
	}
}

// TestTrafficOfAPause: what an Envoy did while it did not answer is no peak afterwards.
func TestTrafficOfAPause(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 5, 0, 2e8, time.UTC)
	b := live.NewBoard(func() time.Time { return now })
	n := &node{id: "a", since: now}
	r := n.report(now)
	r.EnvoyReport.Intervals[0] = status.Traffic{Number: 1, Seconds: 40, Requests: 41, Answers: []int64{0, 41}, Times: []int64{41}}
	b.ReportAgent(r, true)
	total := b.Traffic().Total
	if total.Requests != 41 || total.Answers.Success != 41 || len(total.Intervals) != 4 {
		t.Fatalf("%+v", total)
	}
	for _, x := range total.Intervals {
		if x.Requests < 10 || x.Requests > 11 {
			t.Errorf("%+v", x)
		}
	}
}

// TestHealthByReports: an endpoint is healthy where an Envoy has looked a moment ago and does not name it, and unknown
// where nobody has, whatever was said before.
func TestHealthByReports(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 5, 0, time.UTC)
	b := live.NewBoard(func() time.Time { return now })
	x, y := &node{id: "x", since: now}, &node{id: "y", since: now}
	dead := status.UnhealthyEndpoint{Service: "shop", Address: "10.0.0.2:80", Reason: "health_check"}
	named := status.UnhealthyEndpoint{Service: "shop", Address: "10.0.0.9:80", Host: "c.example", Reason: "ejected"}
	other := status.UnhealthyEndpoint{Service: "other", Address: "10.0.0.1:80", Reason: "ejected"}
	stored := []live.Endpoint{
		{Host: "10.0.0.1", Port: 80}, {Host: "10.0.0.2", Port: 80}, {Host: "c.example", Port: 80, Set: "found"},
	}
	edge := map[string]bool{"edge": true}
	said := func(checked bool, gateways map[string]bool) (out []string) {
		endpoints, proxies := b.Health("shop", checked, gateways, stored)
		for _, e := range endpoints {
			line := fmt.Sprintf("%s %s:", e.Host+e.Address, e.State)
			for _, v := range e.Views {
				line += " " + v.State + v.Reason
			}
			out = append(out, line)
		}
		for _, p := range proxies {
			out = append(out, fmt.Sprintf("%s %s %v", p.Proxy, p.State, p.AgeSeconds))
		}
		return out
	}
	check := func(what string, got []string, want ...string) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("nobody reports", said(true, edge), "10.0.0.1 unknown:", "10.0.0.2 unknown:", "c.example unknown:")
	b.ReportAgent(x.report(now, dead, other), true)
	b.ReportAgent(y.report(now, dead, named), true)
	check("two report", said(true, edge), "10.0.0.1 healthy: healthy healthy",
		"10.0.0.2 unhealthy: unhealthyhealth_check unhealthyhealth_check", "c.example healthy: healthy healthy",
		"c.example10.0.0.9 mixed: healthy unhealthyejected", "envoy-x current 0", "envoy-y current 0")
	check("nobody checks", said(false, edge)[:1], "10.0.0.1 unchecked: unchecked unchecked")
	check("another gateway", said(true, map[string]bool{"default": true}), "10.0.0.1 unknown:", "10.0.0.2 unknown:",
		"c.example unknown:")
	s := b.Traffic()
	if s.UnhealthyServices != 2 || len(s.Unhealthy) != 2 || s.Unhealthy[1].Service != "shop" || s.Unhealthy[1].Proxies != 2 ||
		len(s.Unhealthy[1].Endpoints) != 2 || s.Unhealthy[1].Endpoints[0].Proxies != 2 {
		t.Errorf("%+v", s.Unhealthy)
	}
	// x reports that its Envoy has not answered since, and y reports nothing.
	last := x.report(now, dead)
	now = now.Add(40 * time.Second)
	last.At = resource.Time(now)
	b.ReportAgent(last, true)
	check("old", said(true, edge), "10.0.0.1 unknown: unknown unknown", "10.0.0.2 unknown: unknown unknown",
		"c.example unknown: unknown unknown", "envoy-x old 40", "envoy-y old 40")
	if s := b.Traffic(); len(s.Unhealthy) != 0 || s.Gateways[0].Reporting != 0 {
		t.Errorf("what is old is said as new: %+v", s)
	}
	// There was no room for all that fail: what is not named is not taken for healthy.
	full := x.report(now, dead)
	full.EnvoyReport.UnhealthyMore = 1
	b.ReportAgent(full, true)
	check("more", said(true, edge)[:2], "10.0.0.1 unknown: unknown unknown",
		"10.0.0.2 unhealthy: unhealthyhealth_check unknown")
}

// TestDropsAreCounted: of a kernel's counters the difference counts; a program that was loaded anew counts from 0, and a
// node that was silent is not taken for one that dropped all of it now.
func TestDropsAreCounted(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	b := live.NewBoard(func() time.Time { return now })
	for _, c := range []struct {
		after time.Duration
		n     int64
	}{{0, 1000}, {5 * time.Second, 1000}, {5 * time.Second, 1500}, {5 * time.Second, 30}, {time.Minute, 9000}, {5 * time.Second, 9001}} {
		now = now.Add(c.after)
		b.ReportAgent(status.AgentStatus{ID: "n", At: resource.Time(now), Dropped: map[string]int64{"denied": c.n}}, true)
	}
	d := b.Traffic().Dropped
	if len(d) != 1 || d[0].Reason != "denied" || d[0].Packets != 531 || len(d[0].Intervals) != 2 || d[0].Intervals[0].Packets != 530 {
		t.Errorf("%+v", d)
	}
}
