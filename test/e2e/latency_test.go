package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// TestLatency: the place that answers soonest gets the requests, by what the Envoy itself measures; one that gets
// slow loses them and has them back when it is fast again, without a request that fails, a change of a listener or a
// cluster, or more than one change of the order for each. An xDS server that begins anew has the order. The API says
// which it is, and why.
func TestLatency(t *testing.T) {
	s := start(t, "--no-demo")
	nats, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	near := startEdge(t, s, "NODE_CLOUD=aws", "NODE_ZONE=a", "NATS_URL="+nats, "AGENT_ID=edge",
		"MARCHPROXY_STATE_DIR="+t.TempDir())
	if err := near.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	a, g, o := newSite(t, "aws", "a"), newSite(t, "gcp", "c"), newSite(t, "own", "d")
	g.setDelay(60 * time.Millisecond)
	o.setDelay(200 * time.Millisecond)
	call(t, s, "POST", s.API+"/v1/apply?wait=live&timeout=30s", object{"resources": []any{
		object{"kind": "Service", "name": "soon", "spec": object{
			"endpoints":    []any{o.endpoint(), g.endpoint(), a.endpoint()},
			"health_check": object{"http": object{"path": "/healthz"}, "interval": "1s", "timeout": "1s"},
			"locality":     object{"latency": object{}, "failover": []any{object{"cloud": "own"}}},
		}},
		object{"kind": "Route", "name": "soon", "spec": object{
			"hosts": []string{"soon.example.com"}, "gateways": []string{"edge"}, "backends": []any{object{"service": "soon"}},
		}},
	}}, 200)
	const host = "soon.example.com"
	if got := answersOf(t, near.proxy, host, 5); got["own/d"] != 5 {
		t.Errorf("nothing is measured yet, and what is said is not the order: answers %v", got)
	}
	began := time.Now()
	measuredOrder(t, s, "aws/a", "gcp/c", "own/d")
	only(t, near.proxy, host, "aws/a")
	t.Logf("measured, and in use, %v after the service came", time.Since(began).Round(time.Second))
	before := changesOf(t, s, near)

	load := crowdOn(t, near.proxy, host, 100)
	shifted := func(what, to string) {
		t.Helper()
		began := time.Now()
		load.take()
		soon(t, func() string {
			answers, failures := load.peek()
			if answers[to] == 0 {
				var health api.ServiceHealth
				readInto(t, s, "/v1/services/soon/health", &health)
				return fmt.Sprintf("%s: after %v answers %v, %d failures, orders %+v", what, time.Since(began), answers,
					len(failures), health.Orders)
			}
			return ""
		})
		t.Logf("%s: the first answer of %s after %v", what, to, time.Since(began).Round(time.Second))
	}
	a.setDelay(600 * time.Millisecond)
	shifted("aws is slow", "gcp/c")
	measuredOrder(t, s, "gcp/c", "own/d", "aws/a")
	only(t, near.proxy, host, "gcp/c")
	printed(t, s, []string{"health", "soon"}, "ORDER FROM aws/a", "gcp/c", "STEADY")
	if n := orders(t, s); n != 2 {
		t.Errorf("%d orders, want the first one and one for what got slow", n)
	}

	// Another process of the server has what was measured, and does not begin with what is said.
	_, failed := load.take()
	s.Kill("xds")
	eventually(t, func() string {
		if n := ordersOr(t, s); n != 0 {
			return fmt.Sprintf("the xDS server that begins anew counts %d orders", n)
		}
		return ""
	})
	time.Sleep(3 * time.Second) // for an order that would be another one
	answers, more := load.take()
	if failed = append(failed, more...); answers["gcp/c"] == 0 || len(answers) > 1 {
		t.Errorf("while the xDS server begins anew: answers %v", answers)
	}

	a.setDelay(0)
	shifted("aws is fast again", "aws/a")
	measuredOrder(t, s, "aws/a", "gcp/c", "own/d")
	only(t, near.proxy, host, "aws/a")
	load.stop()
	_, more = load.take()
	if failed = append(failed, more...); len(failed) > 0 {
		t.Errorf("%d requests failed, the first one: %v", len(failed), failed[0])
	}
	if now := changesOf(t, s, near); now != before {
		t.Errorf("an order changed more than endpoints:\n%sbefore\n%s", now, before)
	}
	if n := orders(t, s); n != 1 {
		t.Errorf("%d orders since the server began anew, want one", n)
	}
}

// setDelay has every answer take longer.
func (s *site) setDelay(d time.Duration) {
	s.mu.Lock()
	s.delay = d
	s.mu.Unlock()
}

// peek is what there was since the last take.
func (l *crowd) peek() (answers map[string]int, failures []failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.answers), slices.Clone(l.failures)
}

// measuredOrder waits until the API says that Envoys in aws have measured all places of the service soon, and that they
// come in this order.
func measuredOrder(t *testing.T, s *harness.System, places ...string) {
	t.Helper()
	soon(t, func() string {
		var health api.ServiceHealth
		readInto(t, s, "/v1/services/soon/health", &health)
		if len(health.Orders) != 1 || health.Orders[0].Cloud != "aws" || health.Orders[0].Proxies != 1 {
			return fmt.Sprintf("orders %+v", health.Orders)
		}
		var got []string
		for i, p := range health.Orders[0].Places {
			if !p.Measured || p.LatencyMS <= 0 || p.SteadyLatencyMS <= 0 || p.Priority != int32(i) {
				return fmt.Sprintf("place %+v", p)
			}
			got = append(got, p.Cloud+"/"+p.Zone)
		}
		if !slices.Equal(got, places) {
			return fmt.Sprintf("the order is %+v, want %v", health.Orders[0].Places, places)
		}
		return ""
	})
}

// orders is how many orders of places the xDS server has made.
func orders(t *testing.T, s *harness.System) int {
	t.Helper()
	n := ordersOr(t, s)
	if n < 0 {
		t.Fatal("the xDS server does not say how many orders there were")
	}
	return n
}

// ordersOr is the same, and -1 while the server is not there.
func ordersOr(t *testing.T, s *harness.System) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), racetest.Deadline(2*time.Second))
	defer cancel()
	_, raw, err := s.Call(ctx, "GET", s.XDS+"/metrics", nil)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(raw)) {
		if value, is := strings.CutPrefix(strings.TrimSpace(line), "marchproxy_xds_place_orders_total "); is {
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(line)
			}
			return n
		}
	}
	return -1
}

// changesOf are an Envoy's counts of listeners and clusters that came, went or changed, and of what drains.
func changesOf(t *testing.T, s *harness.System, e edge) string {
	t.Helper()
	status, raw, err := s.Call(t.Context(), "GET", e.admin+"/stats?filter="+url.QueryEscape(
		"^(cluster_manager.cluster_(added|modified|removed)|listener_manager.(listener_(added|modified|removed|"+
			"in_place_updated)|total_(listeners|filter_chains)_draining))$"), nil)
	if err != nil || status != 200 {
		t.Fatal(status, err)
	}
	return string(raw)
}
