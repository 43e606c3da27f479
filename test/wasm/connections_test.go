package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/wasm/envoy"
	"github.com/marchproxy/marchproxy/test/wasm/host"
)

// TestConnectionsCounted: an address has as many connections as the limit, of IPv6 a network of 64 bits; what ends
// makes room, a refused one takes none, and a changed limit counts those that are open.
func TestConnectionsCounted(t *testing.T) {
	vm := start(t, "connections", object{"limit": 2})
	connect := func(from string, want bool) uint32 {
		t.Helper()
		id, open, err := vm.Connect(t.Context(), from)
		if err != nil || open != want {
			t.Fatalf("from %s: let through %t, %v", from, open, err)
		}
		return id
	}
	first := connect("192.0.2.1:1", true)
	connect("[::ffff:192.0.2.1]:2", true)
	for i := range 10 {
		connect(fmt.Sprint("192.0.2.1:", 10+i), false)
	}
	if n := vm.Metrics["marchproxy_connections_refused_total"]; n != 10 {
		t.Errorf("%d are counted as refused", n)
	}
	connect("192.0.2.2:1", true)
	connect("[2001:db8::1]:1", true)
	connect("[2001:db8::2]:1", true)
	connect("[2001:db8::3]:1", false)
	connect("[2001:db8:0:1::3]:1", true)
	for range 2 { // told twice, it counts once
		if err := vm.Disconnect(t.Context(), first); err != nil {
			t.Fatal(err)
		}
	}
	connect("192.0.2.1:30", true)
	connect("192.0.2.1:31", false)
	configure(t, vm, object{"limit": 3})
	connect("192.0.2.1:32", true)
	connect("192.0.2.1:33", false)
	for range 100 { // what has no address is not counted
		connect("/run/socket", true)
	}
	for _, bad := range []string{"", "{}", `{"limit":0}`, `{"limit":"1"}`, `{"limits":1}`} {
		if took, err := vm.Configure(t.Context(), []byte(bad)); took || err != nil {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
}

// TestConnectionsWithFaults: whatever a host call does, the filter does not trap, and a connection that cannot be
// counted is let through.
func TestConnectionsWithFaults(t *testing.T) {
	for _, call := range program(t, "connections").Imports() {
		for _, fault := range host.AllFaults {
			vm := start(t, "connections", object{"limit": 1})
			vm.Faults = func(c string, _ int) host.Fault {
				if c == call {
					return fault
				}
				return host.NoFault
			}
			for i := range 3 {
				id, open, err := vm.Connect(t.Context(), "192.0.2.1:1")
				if err != nil {
					t.Fatalf("%s, fault %d: %v", call, fault, err)
				}
				counted := call == "proxy_increment_metric" || call == "proxy_log"
				if i == 0 && !open || i > 0 && !counted && strings.Contains(call, "shared") && fault == host.Fails && !open {
					t.Errorf("%s, fault %d: connection %d is refused", call, fault, i)
				}
				if i == 0 {
					continue
				}
				if err := vm.Disconnect(t.Context(), id); err != nil {
					t.Fatalf("%s, fault %d: %v", call, fault, err)
				}
			}
			if _, err := vm.Configure(t.Context(), []byte(`{"limit":2}`)); err != nil {
				t.Errorf("%s, fault %d: %v", call, fault, err)
			}
		}
	}
}

// TestConnectionsInEnvoy: over all workers an address has exactly as many as the limit, whoever ends them and however.
func TestConnectionsInEnvoy(t *testing.T) {
	const limit = 50
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := envoy.Start(ctx, envoy.Config{Backend: echo(t), PerAddress: limit, Concurrency: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		noFailures(t, p)
		p.Stop()
	})
	at := strings.TrimPrefix(p.URL, "http://")
	// open says whether a connection from an address is served.
	open := func(from string) (net.Conn, bool) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(ctx, "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(make([]byte, 4096))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("neither served nor closed")
		}
		return c, n > 0
	}
	for round := range 4 {
		var conns []net.Conn
		served := 0
		for range limit + 30 {
			c, ok := open("127.0.0.2")
			conns = append(conns, c)
			if ok {
				served++
			}
		}
		if served != limit {
			t.Fatalf("round %d: %d connections of one address are served", round, served)
		}
		if c, ok := open("127.0.0.3"); !ok {
			t.Error("another address is refused")
		} else {
			_ = c.Close()
		}
		for i, c := range conns {
			if (round+i)%2 == 0 { // by a reset
				_ = c.(*net.TCPConn).SetLinger(0)
			}
			_ = c.Close()
		}
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			text, err := p.Get("/stats?filter=^http.main.downstream_cx_active$")
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(strings.TrimSpace(text), ": 0") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("round %d: connections that were closed are still counted: %s", round, text)
			}
		}
	}
	// Connections that Envoy closes, after their answer.
	for range limit * 4 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	figures, err := p.Get("/stats/prometheus")
	if err != nil || !strings.Contains(figures, "marchproxy_connections_refused_total{} 120\n") {
		t.Errorf("the figures do not say that 120 were refused: %v", err)
	}
}
