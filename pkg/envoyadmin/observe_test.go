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

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
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
	counter := func(stat, family, labels string, n int) {
		if filter.MatchString(stat) && n > 0 {
			_, _ = fmt.Fprintf(w, "# TYPE envoy_%s counter\nenvoy_%s{%s} %d\n", family, family, labels, n)
		}
	}
	counter("server.uptime", "server_uptime", "", e.uptime)
	of := `envoy_http_conn_manager_prefix=%q`
	for what, n := range map[string]int{"total": e.requests, "active": 7} {
		if !filter.MatchString("http.https.downstream_rq_" + what) {
			continue
		}
		_, _ = fmt.Fprintf(w, "# TYPE envoy_http_downstream_rq_%s counter\n", what)
		for name, n := range map[string]int{"admin": 99, "https": n} {
			_, _ = fmt.Fprintf(w, "envoy_http_downstream_rq_%s{"+of+"} %d\n", what, name, n)
		}
	}
	counter("http.https.downstream_rq_2xx", "http_downstream_rq_xx",
		`envoy_response_code_class="2",`+fmt.Sprintf(of, "https"), e.ok)
	if len(e.failures) > 0 {
		_, _ = fmt.Fprintln(w, "# TYPE envoy_cluster_health_check_failure counter")
	}
	for name, n := range e.failures {
		if filter.MatchString("cluster." + name + ".health_check.failure") {
			_, _ = fmt.Fprintf(w, "envoy_cluster_health_check_failure{envoy_cluster_name=%q} %d\n", name, n)
		}
	}
	_, _ = fmt.Fprintln(w, "# TYPE envoy_http_downstream_rq_time histogram")
	for name, n := range map[string][2]int{"admin": {99, 99}, "https": {e.ok - e.slow, e.ok}} {
		bucket := "envoy_http_downstream_rq_time_bucket{" + fmt.Sprintf(of, name) + `,le="%s"} %d` + "\n"
		for i, le := range []string{"0.5", "1.5", "2.5", "+Inf"} {
			_, _ = fmt.Fprintf(w, bucket, le, n[min(i, 1)])
		}
		_, _ = fmt.Fprintf(w, "envoy_http_downstream_rq_time_count{"+of+"} %d\n", name, n[1])
	}
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

// TestBuckets: each bound by which times are shown is one by which Envoy counts them, between the whole milliseconds
// around it.
func TestBuckets(t *testing.T) {
	buckets, _ := bootstrap.Buckets()[0]["buckets"].([]float64)
	if len(buckets) != len(status.TimeBounds) {
		t.Fatalf("%d buckets for %d bounds", len(buckets), len(status.TimeBounds))
	}
	for i, b := range buckets {
		if status.TimeBounds[i] != b+0.5 {
			t.Errorf("a bucket up to %v, and a bound of %v", b, status.TimeBounds[i])
		}
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
