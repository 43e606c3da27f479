package envoyadmin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/status"
)

// envoy answers as one of version 1.40 does, of which test/e2e has a real one.
type envoy struct {
	uptime, requests, ok, slow int
	failures                   map[string]int
	failing                    map[string]int // endpoints that fail, by service
	asked                      []string
	down                       bool
}

func (e *envoy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	filter := regexp.MustCompile(r.URL.Query().Get("filter"))
	if r.URL.Path == "/clusters" {
		var clusters []string
		for name, n := range e.failing {
			if !filter.MatchString(name) {
				continue
			}
			e.asked = append(e.asked, name)
			var hosts []string
			for i := range n + 1 {
				hosts = append(hosts, fmt.Sprintf(`{"address": {"socket_address": {"address": "10.0.0.%d", "port_value": 80}},
					"health_status": {"failed_active_health_check": %v, "eds_health_status": "HEALTHY"}}`, i, i > 0))
			}
			clusters = append(clusters, fmt.Sprintf(`{"name": %q, "host_statuses": [%s]}`, name, strings.Join(hosts, ",")))
		}
		_, _ = fmt.Fprintf(w, `{"cluster_statuses": [%s]}`, strings.Join(clusters, ","))
		return
	}
	stats := []string{}
	say := func(name string, n int) {
		if filter.MatchString(name) && n > 0 {
			stats = append(stats, fmt.Sprintf(`{"name": %q, "value": %d}`, name, n))
		}
	}
	say("server.uptime", e.uptime)
	say("http.admin.downstream_rq_total", 99)
	say("http.https.downstream_rq_total", e.requests)
	say("http.https.downstream_rq_2xx", e.ok)
	say("http.https.downstream_rq_active", 7)
	for name, n := range e.failures {
		say("cluster."+name+".health_check.failure", n)
	}
	stats = append(stats, fmt.Sprintf(`{"histograms": {"supported_percentiles": [50], "details": [
		{"name": "http.admin.downstream_rq_time", "totals": [{"lower_bound": 0, "width": 0, "count": 99}]},
		{"name": "http.https.downstream_rq_time", "totals": [{"lower_bound": 0, "width": 0, "count": %d},
			{"lower_bound": 1, "width": 0.1, "count": %d}]}]}}`, e.ok-e.slow, e.slow))
	_, _ = fmt.Fprintf(w, `{"stats": [%s]}`, strings.Join(stats, ","))
}

func watched(t *testing.T, e *envoy) *Observer {
	t.Helper()
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &Observer{
		Admin: New(u.Host), failed: map[string]int64{}, bad: map[string][]status.UnhealthyEndpoint{},
	}
}

// TestObserverCounts: intervals have the difference of two looks, of the listeners alone; an Envoy that was started
// again counts from 0, and one that does not answer leaves the report as old as it is.
func TestObserverCounts(t *testing.T) {
	e := &envoy{uptime: 100, requests: 50, ok: 40, slow: 10}
	o := watched(t, e)
	o.look(t.Context())
	if r := o.Report(); r == nil || len(r.Intervals) != 0 {
		t.Fatalf("the first look: %+v", r)
	}
	last := func() status.Traffic {
		t.Helper()
		r := o.Report()
		return r.Intervals[len(r.Intervals)-1]
	}
	e.uptime, e.requests, e.ok, e.slow = 110, 58, 47, 12
	o.look(t.Context())
	if x := last(); x.Number != 1 || x.Requests != 8 || !slices.Equal(x.Answers, []int64{0, 7, 0, 0, 0}) || x.Times[0] != 5 ||
		x.Times[1] != 2 {
		t.Errorf("%+v", x)
	}
	before := *o.Report()
	e.down = true
	o.look(t.Context())
	if r := o.Report(); r.At != before.At || len(r.Intervals) != 1 {
		t.Errorf("one that is down: %+v", r)
	}
	*e = envoy{uptime: 2, requests: 60, ok: 60}
	o.look(t.Context())
	if x := last(); x.Number != 2 || x.Requests != 60 || x.Answers[1] != 60 || x.Times[0] != 60 {
		t.Errorf("one that was started again: %+v", x)
	}
	for range 4 {
		o.look(t.Context())
	}
	if r := o.Report(); len(r.Intervals) != 3 || last().Number != 6 || last().Times != nil {
		t.Errorf("%+v", r.Intervals)
	}
}

// TestObserverAsksWhatFails: a service is asked about when it has had a failure that is new, and as long as it has a
// failing endpoint; all others are left alone.
func TestObserverAsksWhatFails(t *testing.T) {
	e := &envoy{uptime: 1, failures: map[string]int{}, failing: map[string]int{"a": 1, "b": 2, "fine": 0, "quiet": 0}}
	o := watched(t, e)
	look := func(want ...string) {
		t.Helper()
		e.asked = nil
		o.look(t.Context())
		if slices.Sort(e.asked); !slices.Equal(e.asked, want) {
			t.Errorf("asked about %q, want %q", e.asked, want)
		}
	}
	bad := func() (out []string) {
		for _, u := range o.Report().Unhealthy {
			out = append(out, u.Service+" "+u.Address+" "+u.Reason)
		}
		return out
	}
	look()
	e.failures = map[string]int{"a": 3, "b": 1, "fine": 1}
	look("a", "b", "fine")
	if got := bad(); !slices.Equal(got, []string{
		"a 10.0.0.1:80 health_check", "b 10.0.0.1:80 health_check", "b 10.0.0.2:80 health_check",
	}) {
		t.Errorf("%q", got)
	}
	look("a", "b")
	e.failing["b"] = 0
	look("a", "b")
	look("a")
	if got := bad(); !slices.Equal(got, []string{"a 10.0.0.1:80 health_check"}) {
		t.Errorf("%q", got)
	}
	delete(e.failures, "a") // it is gone, or its Envoy was started again
	look()
	if got := bad(); got != nil {
		t.Errorf("%q", got)
	}
	// More than there is room for.
	e.failures, e.failing = map[string]int{}, map[string]int{}
	for i := range 130 {
		name := fmt.Sprintf("s-%03d", i)
		e.failures[name], e.failing[name] = 1, 2
	}
	o.look(t.Context())
	if r := o.Report(); len(r.Unhealthy) != status.MaxUnhealthy || int(r.UnhealthyMore) != 2*130-status.MaxUnhealthy {
		t.Errorf("%d named and %d more", len(r.Unhealthy), r.UnhealthyMore)
	}
}
