package e2e

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// listenerStats are Envoy's counts of what happened to its listeners.
func listenerStats(t *testing.T, s *harness.System) map[string]int {
	t.Helper()
	status, raw, err := s.Call(t.Context(), "GET", s.Admin+"/stats?filter=^listener_manager.(listener_|total_)", nil)
	if err != nil || status != 200 {
		t.Fatal(status, err)
	}
	out := map[string]int{}
	for line := range strings.Lines(string(raw)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		if !ok || err != nil {
			continue
		}
		out[strings.TrimPrefix(name, "listener_manager.")] = n
	}
	return out
}

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
	ca := object{"kind": "Certificate", "name": "ca", "spec": object{"chain": a.pem}}
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
