package monitoring

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

var (
	typed  = regexp.MustCompile(`^# TYPE (\S+) (\w+)$`)
	sample = regexp.MustCompile(`^(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$`)
	label  = regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`)
)

// scrape adds the metrics that a URL shows.
func scrape(t *testing.T, s *harness.System, url string, into map[string]metric) {
	t.Helper()
	status, raw, err := s.Call(t.Context(), "GET", url, nil)
	if err != nil || status != 200 {
		t.Fatalf("%s: %d %v", url, status, err)
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if m := typed.FindStringSubmatch(line); m != nil {
			into[m[1]] = metric{kind: m[2]}
		} else if m := sample.FindStringSubmatch(line); m != nil {
			x := into[m[1]]
			var labels []string
			for _, l := range label.FindAllStringSubmatch(m[2], -1) {
				if l[1] != "le" {
					labels = append(labels, l[1])
				}
			}
			slices.Sort(labels)
			x.labels = strings.Join(labels, ",")
			into[m[1]] = x
		}
	}
}

// Metrics of Envoy and its filters, and those of the other programs.
var (
	ofEnvoy = regexp.MustCompile(`^(envoy|marchproxy)_`)
	ofParts = regexp.MustCompile(`^marchproxy_(api|xds|agent)_`)
)

// TestMetricsTable: every metric that a running process shows is in docs/metrics.md with its type and labels, and every
// one that is there is shown.
func TestMetricsTable(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	node := startNode(t, s)
	if err := node.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	chain, key := certificate(t, "web.test", 24)
	s.Want(t, "POST", s.API+"/v1/apply?wait=live", map[string]any{"resources": []any{
		map[string]any{"kind": "Certificate", "name": "web", "spec": map[string]any{"chain": chain, "private_key": key}},
		map[string]any{
			"kind": "AuthPolicy", "name": "staff",
			"spec": map[string]any{"tokens": []any{
				map[string]any{"name": "ci", "value": "b3BhcXVlLXRva2VuLWZvci1hLW1hY2hpbmU="},
			}},
		},
		map[string]any{
			"kind": "License", "name": "main",
			"spec": map[string]any{"gates": []any{map[string]any{"feature": "gold", "paths": []string{"/gold"}}}},
		},
		direct("open", nil), direct("staff", map[string]any{"auth_policy": "staff"}),
		direct("gold", map[string]any{"features": []string{"gold"}}),
		map[string]any{
			"kind": "Service", "name": "back",
			"spec": map[string]any{"endpoints": []any{map[string]any{"host": "127.0.0.1", "port": 1}}},
		},
		map[string]any{"kind": "Route", "name": "back", "spec": map[string]any{
			"hosts":    []string{"back.test"},
			"backends": []any{map[string]any{"service": "back"}},
		}},
		map[string]any{"kind": "RateLimitPolicy", "name": "all", "spec": map[string]any{"packets_per_second": 1000000}},
	}}, 200)
	s.Want(t, "PATCH", s.API+"/v1/gateways/default?wait=live", `{"spec":{"license":"main","metrics_engine":"wasm"}}`, 200)
	s.Want(t, "PUT", s.API+"/v1/certificate-issuers/away",
		`{"spec":{"directory":"https://127.0.0.1:1/directory","terms_agreed":true}}`, 201)
	s.Want(t, "PUT", s.API+"/v1/certificates/ordered", `{"spec":{"issuer":"away","names":["ordered.test"]}}`, 201)
	c := probe.New(s.Proxy)
	defer c.Close()
	for host, want := range map[string]int{"open": 200, "staff": 401, "gold": 402} {
		harness.Eventually(t, func() string { // the license is a filter's content, which comes by itself
			if a, _, err := c.Get(host+".test", "/"); err != nil || a.Status != want {
				return host + " is not answered as it should be"
			}
			return ""
		})
	}
	want := documented(t)
	// Discovery needs something to discover: its metrics are held against the table by TestMetricsInCode alone.
	maps.DeleteFunc(want, func(name string, _ metric) bool { return strings.HasPrefix(name, "marchproxy_discover_") })
	// All that an Envoy is told of it comes twice a second; an Envoy that hangs is the last condition, because it is not
	// scraped any more.
	got := map[string]metric{}
	harness.Eventually(t, func() string {
		scrape(t, s, s.Admin+"/stats/prometheus", got)
		for name := range want {
			if _, there := got[name]; !there && ofEnvoy.MatchString(name) && !ofParts.MatchString(name) {
				return "no Envoy shows " + name
			}
		}
		return ""
	})
	pid := s.Pid("envoy")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // so that the system can be stopped
	s.Want(t, "PUT", s.API+"/v1/routes/late", direct("late", nil), 201)
	harness.Eventually(t, func() string {
		for _, url := range []string{s.API, s.XDS, node.HTTP} {
			scrape(t, s, url+"/metrics", got)
		}
		if got["marchproxy_xds_proxy_lag_seconds"].kind == "" {
			return "an Envoy that hangs is not said to lag"
		}
		if got["marchproxy_api_certificate_orders_total"].kind == "" {
			return "an order that failed is not counted"
		}
		return ""
	})
	for _, name := range slices.Sorted(maps.Keys(got)) {
		w, there := want[name]
		switch {
		case !there && !strings.HasPrefix(name, "marchproxy_"): // of libraries, and Envoy's own
		case !there:
			t.Errorf("%s is shown, and not in docs/metrics.md", name)
		case w != got[name]:
			t.Errorf("%s is a %s with labels %q; docs/metrics.md says %s, %q", name, got[name].kind, got[name].labels,
				w.kind, w.labels)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if _, there := got[name]; !there {
			t.Errorf("docs/metrics.md has %s, which nobody shows", name)
		}
	}
}
