package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var ofMetrics = regexp.MustCompile(
	`(?m)^marchproxy_(?:requests_total|request_bytes_total|response_bytes_total|request_duration_us_count|request_duration_us_bucket)\{[^}]*\} \d+$`,
)

// TestMetricsEngines: Envoy itself and the filter count the same requests under the same names and labels, with the
// same numbers where they are numbers of requests, and in the same buckets; turning from one to the other, off and on
// again changes no listener.
func TestMetricsEngines(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	port := echo(t)
	call(t, s, "POST", s.API+"/v1/apply?wait=live", `{"resources":[
		{"kind":"Service","name":"web","spec":{"endpoints":[{"host":"127.0.0.1","port":`+port+`}]}},
		{"kind":"Route","name":"one","spec":{"hosts":["a.test"],"backends":[{"service":"web"}]}},
		{"kind":"Route","name":"two","spec":{"hosts":["*.b.test"],"backends":[{"service":"web"},{"service":"web2"}]}},
		{"kind":"Service","name":"web2","spec":{"endpoints":[{"host":"127.0.0.1","port":`+port+`}]}},
		{"kind":"Route","name":"own","spec":{"hosts":["c.test"],"path":{"exact":"/own"},"direct_response":{"status":200,"body":"ok"}}}]}`, 200)
	engine := func(spec string) {
		t.Helper()
		answer := call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live", `{"spec":{`+spec+`}}`, 200)
		if l := answer["live"].(map[string]any); l["state"] != "live" || answer["drains"] != nil {
			t.Fatalf("%s: %v, drains %v", spec, l, answer["drains"])
		}
	}
	ask := func() {
		t.Helper()
		for host, paths := range map[string][]string{
			"a.test": {"/", "/x"}, "x.b.test": {"/"}, "c.test": {"/own", "/none"},
			"nobody.test": {"/"},
		} {
			v := visit(t, s, host)
			for _, p := range paths {
				for _, method := range []string{"GET", "POST", "TRACE", "DELETE", "PURGE"} {
					v.ask(method, p)
				}
			}
		}
	}
	// added is what the requests have added, when a scrape shows that it is all there.
	added := func(before map[string]int) map[string]int {
		t.Helper()
		var out map[string]int
		eventually(t, func() string {
			out = map[string]int{}
			requests, durations := 0, 0
			for name, n := range counted(t, s) {
				if n -= before[name]; n == 0 && !strings.Contains(name, "_bucket") {
					continue
				}
				out[name] = n
				if strings.Contains(name, "requests_total") {
					requests += n
				} else if strings.Contains(name, "_us_count") {
					durations += n
				}
			}
			if requests != 30 || durations != 30 {
				return fmt.Sprintf("%d requests and %d durations were counted, want 30", requests, durations)
			}
			return ""
		})
		return out
	}
	listeners := listenerStats(t, s)
	before := counted(t, s)
	ask()
	native := added(before)
	engine(`"metrics_engine":"wasm"`)
	before = counted(t, s)
	ask()
	wasm := added(before)
	names := func(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
	if a, b := names(native), names(wasm); !slices.Equal(a, b) {
		t.Errorf("Envoy's series\n%s\nand the filter's\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	for name, n := range native {
		m := wasm[name]
		switch {
		case strings.Contains(name, "_bucket"):
		case strings.Contains(name, "bytes"):
			if n <= 0 || m <= 0 { // on the wire, and with what Envoy adds: the numbers differ
				t.Errorf("%s: %d bytes by Envoy, %d by the filter", name, n, m)
			}
		case n != m:
			t.Errorf("%s: %d by Envoy, %d by the filter", name, n, m)
		}
	}
	for _, off := range []string{`"metrics":false,"metrics_engine":"native"`, `"metrics":false,"metrics_engine":"wasm"`} {
		engine(off)
		before = counted(t, s)
		ask()
		time.Sleep(time.Second)              // the filter tells twice a second
		for name, n := range counted(t, s) { // the filter's own go with it
			if n > before[name] && !strings.Contains(name, "_us_") {
				t.Errorf("%s: %s is %d, was %d", off, name, n, before[name])
			}
		}
	}
	engine(`"metrics":null,"metrics_engine":null`)
	before = counted(t, s)
	ask()
	if again := added(before); !slices.Equal(names(again), names(native)) {
		t.Errorf("on again: %v", again)
	}
	if after := listenerStats(t, s); !maps.Equal(listeners, after) {
		t.Errorf("a listener has changed: %v, before %v", after, listeners)
	}
}
