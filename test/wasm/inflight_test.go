package wasm

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/wasm/envoy"
)

// rude is a backend that ends requests in every way that is not an answer.
func rude(t *testing.T) int {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		switch r.URL.Path {
		case "/half":
			_, _ = rw.WriteString("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
		case "/never", "/websocket":
			if r.URL.Path == "/websocket" {
				_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
			}
			_ = rw.Flush()
			_, _ = rw.ReadByte() // until the proxy closes
		case "/reset":
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		_ = rw.Flush()
	}))
	t.Cleanup(s.Close)
	return portOf(t, s.URL)
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

var inFlight = regexp.MustCompile(`(?m)^marchproxy_requests_in_flight\{\} (\d+)$`)

// await waits until so many requests are in flight, and so many have ended.
func await(t *testing.T, p *envoy.Proxy, flying, ended int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := p.Get("/stats/prometheus")
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, m := range regexp.MustCompile(`(?m)^marchproxy_requests_total\{.*\} (\d+)$`).FindAllStringSubmatch(all, -1) {
			n, _ := strconv.Atoi(m[1])
			sum += n
		}
		got := inFlight.FindStringSubmatch(all)
		if got != nil && got[1] == strconv.Itoa(flying) && sum == ended {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("in flight %v, ended %d; want %d and %d", got, sum, flying, ended)
		case <-tick.C:
		}
	}
}

// TestInFlight: however a request ends, it is counted once and is then not in flight any more.
func TestInFlight(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	p, err := envoy.Start(ctx, envoy.Config{Backend: rude(t), Filters: []envoy.Filter{
		{Name: "metrics", Configuration: object{}},
		{Name: "license", Configuration: object{}},
		{Name: "auth", Configuration: object{
			"default_policy": "p",
			"policies": []object{{
				"name": "p", "tokens": []object{{"sha256": digest("b25l")}},
				"exempt_paths": []object{
					{"path": "/half"},
					{"path": "/never"},
					{"path": "/websocket"},
					{"path": "/reset"},
					{"path": "/close"},
				},
			}},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		noFailures(t, p)
		if log := p.Stop(); t.Failed() {
			t.Log(log)
		}
	})
	address := strings.TrimPrefix(p.URL, "http://")
	dial := func(request string) net.Conn {
		t.Helper()
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	status := func(c net.Conn) string {
		t.Helper()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, code, _ := strings.Cut(strings.TrimSpace(line), " ")
		return code[:3]
	}
	ended := 0
	for _, c := range []struct{ what, path, headers, status string }{
		{"refused by the filter", "/", "", "401"},
		{"refused by Envoy before any filter", "/a%2fb", "", "400"},
		{"a header with an underscore", "/", "x_y: 1\r\n", "400"},
		{"the backend closes without an answer", "/close", "", "503"},
		{"the backend resets", "/reset", "", "503"},
		{"the backend closes amid the answer", "/half", "", "200"},
	} {
		conn := dial(fmt.Sprintf("GET %s HTTP/1.1\r\nhost: x\r\n%sconnection: close\r\n\r\n", c.path, c.headers))
		if got := status(conn); got != c.status {
			t.Errorf("%s: %s, want %s", c.what, got, c.status)
		}
		ended++
		await(t, p, 0, ended)
		_ = conn.Close()
	}

	// The client goes away, before the answer and with a WebSocket open; also many at once.
	var open []net.Conn
	for range 50 {
		open = append(open, dial("GET /never HTTP/1.1\r\nhost: x\r\n\r\n"))
	}
	ws := dial("GET /websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n" +
		"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if got := status(ws); got != "101" {
		t.Errorf("WebSocket: %s", got)
	}
	await(t, p, 51, ended)
	for _, c := range open {
		_ = c.Close()
	}
	await(t, p, 1, ended+50)
	_ = ws.Close()
	await(t, p, 0, ended+51)
}
