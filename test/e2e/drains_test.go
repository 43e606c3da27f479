package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// TestLimitsAndClientAuthDrainNothing: limits leave the listener as it is, a host that is to demand client
// certificates has a chain of its own added, and every connection goes on, with what was changed in force.
func TestLimitsAndClientAuthDrainNothing(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(ports[0])
	a := newAuthority(t)
	chain, key := a.issue(t, "a.example.com", "b.example.com", "c.example.com")
	certificate := object{"kind": "Certificate", "name": "main", "spec": object{"chain": chain, "private_key": key}}
	ca := object{"kind": "Certificate", "name": "ca", "spec": object{"chain": a.PEM}}
	apiKeys := keys(t, s)
	gateway := func(limits object, strict ...string) object {
		auth := []any{}
		for _, h := range strict {
			auth = append(auth, object{"hosts": []string{h}, "ca_certificate": "ca"})
		}
		spec := object{"api_keys": apiKeys, "listeners": []any{
			object{"name": "http", "port": s.ProxyPort},
			object{
				"name": "https", "port": ports[0], "protocol": "https", "certificates": []string{"main"}, "client_auth": auth,
			},
		}}
		if limits != nil {
			spec["limits"] = limits
		}
		return object{"kind": "Gateway", "name": "default", "spec": spec}
	}
	apply := func(resources ...any) {
		t.Helper()
		answer := call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": resources}, 200)
		if l := answer["live"].(map[string]any); l["state"] != "live" {
			t.Fatal(l)
		}
	}
	apply(certificate, ca, gateway(nil), direct("a", "a", nil), direct("b", "b", nil),
		direct("c", "c", object{"hosts": []string{"*.example.com"}}))

	kept := probe.New(s.Proxy)
	defer kept.Close()
	plain := func(want int) {
		t.Helper()
		if got, reused, err := kept.Get("a.example.com", "/"); err != nil || got.Status != want || !reused {
			t.Errorf("kept connection: %d %v, reused %t, want %d", got.Status, err, reused, want)
		}
	}
	if _, _, err := kept.Get("a.example.com", "/"); err != nil {
		t.Fatal(err)
	}
	shared := browser(a, "a.example.com", nil)
	tls := func(want map[string]int) {
		t.Helper()
		for _, host := range slices.Sorted(maps.Keys(want)) {
			if status, _, _, reused, _ := fetch(t, shared, port, host); status != want[host] || !reused {
				t.Errorf("%s: %d, reused %t, want %d", host, status, reused, want[host])
			}
		}
	}
	fetch(t, shared, port, "a.example.com")
	before := listenerStats(t, s)

	apply(gateway(object{"local_rate_limit": object{"requests": 1, "per": "3600s"}}))
	plain(200)
	plain(429)
	apply(gateway(object{"local_rate_limit": object{"requests": 2, "per": "3600s"}, "max_connections": 1}))
	plain(200)
	plain(200)
	plain(429)
	apply(gateway(object{"max_connections": 1}))
	plain(200)
	var opened []*probe.Conn
	answers := 0
	for range 3 { // one of them is the first since the limit came
		c := probe.New(s.Proxy)
		opened = append(opened, c)
		if _, _, err := c.Get("a.example.com", "/"); err == nil {
			answers++
		}
	}
	for _, c := range opened {
		c.Close()
	}
	if answers != 1 {
		t.Errorf("of three connections where one is allowed %d were served", answers)
	}
	apply(gateway(nil))
	plain(200)
	tls(map[string]int{"a.example.com": 200, "b.example.com": 200})
	if after := listenerStats(t, s); !maps.Equal(before, after) {
		t.Errorf("limits changed a listener: %v, before %v", after, before)
	}

	for k := range 5 {
		earlier := browser(a, "b.example.com", nil) // made without a client certificate, before one is demanded
		fetch(t, earlier, port, "b.example.com")
		apply(gateway(nil, "b.example.com"))
		if status, _, _, reused, _ := fetch(t, earlier, port, "b.example.com"); status != 421 || !reused {
			t.Errorf("a strict host on a connection from before: %d, reused %t", status, reused)
		}
		tls(map[string]int{"a.example.com": 200, "b.example.com": 421, "c.example.com": 200})
		tls(map[string]int{"B.example.com": 421, "b.example.com.": 421})
		apply(gateway(nil, "b.example.com", "c.example.com"))
		tls(map[string]int{"a.example.com": 200, "b.example.com": 421, "c.example.com": 421})
		if n := listenerStats(t, s)["total_filter_chains_draining"]; n > 3*k {
			t.Errorf("round %d: %d filter chains drain, of client_auth that was taken away at most %d", k, n, 3*k)
		}
		apply(gateway(nil, "c.example.com")) // the other entry keeps its chain
		tls(map[string]int{"a.example.com": 200, "b.example.com": 200, "c.example.com": 421})
		apply(gateway(nil, "*.example.com"))
		tls(map[string]int{"a.example.com": 421, "c.example.com": 421})
		apply(gateway(nil))
		tls(map[string]int{"a.example.com": 200, "b.example.com": 200, "c.example.com": 200})
	}
	plain(200)
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port)); err != nil {
		t.Error(fmt.Errorf("the listener is gone: %w", err))
	} else {
		_ = conn.Close() // it was only to see
	}
}

// logged are the lines of the access log of Envoy for a path.
func logged(t *testing.T, s *harness.System, path string) (out []string) {
	t.Helper()
	// Envoy writes what it has buffered once a second, or when it is asked to.
	if status, _, err := s.AdminSocket().Do(t.Context(), "POST", "/reopen_logs"); err != nil || status != 200 {
		t.Fatal(status, err)
	}
	raw, err := os.ReadFile(filepath.Join(s.Dir, "log", "envoy.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, `"path":"`+path+`"`) {
			out = append(out, line)
		}
	}
	return out
}

// TestAccessLogAndTracingDrainNothing: the access log is switched and bounded, and the share of traced requests
// chosen, by Envoy's runtime: no listener changes, and what is chosen is in force when the write returns.
func TestAccessLogAndTracingDrainNothing(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	apiKeys := keys(t, s)
	set := func(more object) {
		t.Helper()
		spec := object{"api_keys": apiKeys, "listeners": []any{object{"name": "http", "port": s.ProxyPort}}}
		maps.Copy(spec, more)
		answer := call(t, s, "PUT", s.API+"/v1/gateways/default?wait=live", object{"spec": spec}, 200)
		if l := answer["live"].(map[string]any); l["state"] != "live" {
			t.Fatal(l)
		}
	}
	call(t, s, "PUT", s.API+"/v1/routes/a?wait=live", direct("a", "a", nil), 201)
	call(t, s, "PUT", s.API+"/v1/services/collector?wait=live",
		`{"spec":{"protocol":"grpc","endpoints":[{"host":"127.0.0.1","port":9}]}}`, 201)
	kept := probe.New(s.Proxy)
	defer kept.Close()
	n, fresh := 0, true
	ask := func(host string, want int) string {
		t.Helper()
		n++
		path := fmt.Sprintf("/request-%d", n)
		if got, reused, err := kept.Get(host, path); err != nil || got.Status != want || (!fresh && !reused) {
			t.Errorf("%s: %d %v, reused %t", path, got.Status, err, reused)
		}
		fresh = false
		return path
	}
	is := func(path string, logs bool) {
		t.Helper()
		if logs {
			eventually(t, func() string {
				if len(logged(t, s, path)) == 1 {
					return ""
				}
				return path + " is not in the access log"
			})
		} else if lines := logged(t, s, path); len(lines) > 0 {
			t.Errorf("logged: %s", lines)
		}
	}
	ask("a.example.com", 200)
	before := listenerStats(t, s)
	for range 3 {
		off := ask("a.example.com", 200)
		set(object{"access_log": object{}})
		on := ask("a.example.com", 200)
		set(object{"access_log": object{"min_status": 404}})
		good, bad := ask("a.example.com", 200), ask("nobody.example.com", 404)
		set(nil)
		last := ask("nobody.example.com", 404)
		is(bad, true)
		is(on, true)
		is(off, false)
		is(good, false)
		is(last, false)
	}
	if after := listenerStats(t, s); !maps.Equal(before, after) {
		t.Errorf("the access log changed a listener: %v, before %v", after, before)
	}

	set(object{"tracing": object{"service": "collector", "percent": 0}}) // this one does, and is named beforehand
	before = listenerStats(t, s)
	traced := func() int {
		t.Helper()
		_, raw, err := s.Call(t.Context(), "GET", s.Admin+"/stats?filter=^http.http.tracing.random_sampling$", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, value, _ := strings.Cut(strings.TrimSpace(string(raw)), ": ")
		count, err := strconv.Atoi(value)
		if err != nil {
			return 0 // not counted yet
		}
		return count
	}
	kept.Close()
	fresh = true
	ask("a.example.com", 200)
	if got := traced(); got != 0 {
		t.Errorf("%d requests are traced at 0 percent", got)
	}
	set(object{"tracing": object{"service": "collector", "percent": 100}})
	ask("a.example.com", 200)
	set(object{"tracing": object{"service": "collector", "percent": 0}})
	ask("a.example.com", 200)
	if got := traced(); got != 1 {
		t.Errorf("%d requests are traced, one was to be", got)
	}
	if after := listenerStats(t, s); !maps.Equal(before, after) {
		t.Errorf("the share of traced requests changed a listener: %v, before %v", after, before)
	}
}

// TestDrainsAreNamed: what drains is said by the dry run and by the answer, with the time that the Envoys really
// have, which they take from their gateway when they start; and it is so.
func TestDrainsAreNamed(t *testing.T) {
	s := start(t, "--no-demo")
	patch := func(query string, spec object) (rules map[string]string) {
		t.Helper()
		answer := call(t, s, "PATCH", s.API+"/v1/gateways/default"+query, object{"spec": spec}, 200)
		rules = map[string]string{}
		list, _ := answer["warnings"].([]any)
		for _, w := range list {
			x := w.(map[string]any)
			rules[fmt.Sprint(x["rule"], " ", x["path"])] = fmt.Sprint(x["message"])
		}
		return rules
	}
	drainTime := func() any {
		t.Helper()
		for _, p := range call(t, s, "GET", s.API+"/v1/proxies", nil, 200)["items"].([]any) {
			if p.(map[string]any)["connected"] == true {
				return p.(map[string]any)["drain_time_seconds"]
			}
		}
		return "no Envoy"
	}
	call(t, s, "PUT", s.API+"/v1/routes/a?wait=live", direct("a", "a", nil), 201)
	eventually(t, func() string { // the report is behind by as much
		if got := drainTime(); fmt.Sprint(got) != "600" {
			return fmt.Sprintf("drain time %v, want Envoy's default", got)
		}
		return ""
	})
	patch("?wait=live", object{"limits": object{"max_connections": 900}})
	const cause = "gateway.drains $.limits.idle_timeout"
	change := object{"limits": object{"idle_timeout": "1800s"}}
	for _, query := range []string{"?dry_run=true", "?wait=live"} {
		if got := patch(query, change); len(got) != 1 || !strings.Contains(got[cause], "listener http") ||
			!strings.Contains(got[cause], "10m0s") {
			t.Errorf("%s: %v", query, got)
		}
	}
	if got := patch("?wait=live", object{
		"limits":     object{"max_connections": 1000},
		"access_log": object{},
	}); len(got) != 0 {
		t.Errorf("what drains nothing is warned of: %v", got)
	}
	if got := patch("?wait=live", object{"drain_time": "3s"}); len(got) != 1 ||
		!strings.Contains(got["gateway.drain_time $.drain_time"], "10m0s") {
		t.Errorf("a drain time that is not in force yet: %v", got)
	}
	again(t, s, "envoy")
	eventually(t, func() string {
		if got := drainTime(); fmt.Sprint(got) != "3" {
			return fmt.Sprintf("an Envoy that has started has the drain time %v", got)
		}
		return ""
	})
	kept, err := net.Dial("tcp", s.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = kept.Close() }() // by then it is
	if _, err := io.WriteString(kept, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(kept)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if got := patch("?wait=live", object{"limits": object{"idle_timeout": "1900s"}}); !strings.Contains(got[cause],
		" 3s") {
		t.Errorf("warnings %v, want 3s", got)
	}
	if err := kept.SetReadDeadline(began.Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection that drains: %v", err)
	}
	if took := time.Since(began); took < 2500*time.Millisecond {
		t.Errorf("it was cut after %v", took)
	}
}

// TestAgentAsksForTheDrainTime: Envoy is started with that of its gateway.
func TestAgentAsksForTheDrainTime(t *testing.T) {
	s := start(t, "--no-demo")
	startEdge(t, s)
	eventually(t, func() string {
		said := "no Envoy of gateway edge"
		for _, p := range call(t, s, "GET", s.API+"/v1/proxies", nil, 200)["items"].([]any) {
			if p := p.(map[string]any); p["gateway"] == "edge" {
				if said = fmt.Sprint(p["drain_time_seconds"]); said == "90" {
					return ""
				}
			}
		}
		return said
	})
}
