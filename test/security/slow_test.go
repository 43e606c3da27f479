package security

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/hostile"
	"github.com/marchproxy/marchproxy/test/probe"
)

// patient is a backend that reads a whole body before it answers, after as long as the query says, and that takes
// WebSockets.
func patient(t *testing.T, s *harness.System) {
	t.Helper()
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "websocket" {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }() // the test is over
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
			_ = rw.Flush()
			_, _ = io.Copy(c, rw) // until somebody closes
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return // the client's time is over
		}
		after, _ := time.ParseDuration(r.URL.Query().Get("after"))
		time.Sleep(after) // a slow service is the subject
		_, _ = fmt.Fprint(w, n)
	}))
	t.Cleanup(func() {
		b.CloseClientConnections()
		b.Close()
	})
	_, port, err := net.SplitHostPort(b.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ok(t, s, "PUT", s.API+"/v1/services/patient", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+port+`}]}}`)
	ok(t, s, "PUT", s.API+"/v1/routes/patient?wait=live", `{"spec":{"hosts":["*"],"backends":[{"service":"patient"}],
		"websocket":true}}`)
}

// patch changes fields of an object, and waits until that is live.
func patch(t *testing.T, s *harness.System, path, spec string) {
	t.Helper()
	var answer struct{ Live struct{ State string } }
	raw := ok(t, s, "PATCH", s.API+"/v1/"+path+"?wait=live", `{"spec":`+spec+`}`)
	if err := json.Unmarshal(raw, &answer); err != nil || answer.Live.State != "live" {
		t.Fatalf("%s: %s, %v", path, raw, err)
	}
}

// asked is how long requests of a client took that is in no hurry, and how many of them were not answered.
func asked(t *testing.T, s *harness.System, n int) (p99 time.Duration, failed int) {
	t.Helper()
	c := probe.New(s.Proxy)
	defer c.Close()
	var took []time.Duration
	for i := range n {
		if i%10 == 0 {
			c.Close()
		}
		t0 := time.Now()
		a, _, err := c.Get("x.example.com", "/")
		if took = append(took, time.Since(t0)); err != nil || a.Status != 200 {
			failed++
		}
		if failed > 3 {
			break
		}
		time.Sleep(10 * time.Millisecond) // between two requests, so that they meet the whole attack
	}
	slices.Sort(took)
	return took[len(took)*99/100], failed
}

// TestSlowClients: 1,100 bodies that come byte by byte from one address, over HTTP/1.1 and over HTTP/2, cost another
// client nothing. Without the limits they cost him everything, so that it is they that help.
func TestSlowClients(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	patient(t, s)
	quiet, failed := asked(t, s, 200)
	if failed > 0 {
		t.Fatalf("%d requests fail without an attack", failed)
	}
	target := hostile.Target{Addr: s.Proxy, Path: "/", Headers: []string{"X-From: hostile"}}
	attacked := func(t *testing.T, a hostile.Attack, at int) (time.Duration, int) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan hostile.Done, 1)
		go func() { over <- a.Run(ctx, target) }()
		harness.Eventually(t, func() string {
			if n := openRequests(t, s); n < at {
				return fmt.Sprintf("%d of %d are open", n, at)
			}
			return ""
		})
		p99, failed := asked(t, s, 200)
		cancel()
		t.Logf("%+v: the other's p99 is %v, without it %v", <-over, p99, quiet)
		harness.Eventually(t, func() string {
			if n := openRequests(t, s); n > 0 {
				return fmt.Sprintf("%d are open still", n)
			}
			return ""
		})
		return p99, failed
	}
	for name, c := range map[string]struct {
		attack hostile.Attack
		open   int
	}{
		"HTTP1": {hostile.SlowBodies(1100), 990}, // of 1,000 connections, some begin anew
		"HTTP2": {hostile.SlowStreams(11), 1100},
	} {
		t.Run(name, func(t *testing.T) {
			if p99, failed := attacked(t, c.attack, c.open); failed > 0 || p99 > 2*quiet+100*time.Millisecond {
				t.Errorf("%d of the other's requests fail, p99 is %v", failed, p99)
			}
		})
	}
	t.Run("without", func(t *testing.T) {
		patch(t, s, "gateways/default", `{"limits":{"max_connections_per_address":0}}`)
		patch(t, s, "services/patient", `{"circuit_breaker":{"max_connections":1024,"max_requests":1024,`+
			`"max_pending_requests":1024}}`)
		if _, failed := attacked(t, hostile.SlowBodies(1100), 1024); failed == 0 {
			t.Error("the attack does no harm without the limits: this test shows nothing")
		}
	})
}

// openRequests is how many requests Envoy has open at its services.
func openRequests(t *testing.T, s *harness.System) int {
	t.Helper()
	_, text, err := s.Call(t.Context(), "GET", s.Admin+"/stats?filter=^cluster.patient.upstream_rq_active$", nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if _, value, found := strings.Cut(string(text), ": "); found {
		if _, err := fmt.Sscan(value, &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestRequestTimeout: a request that does not arrive in its time is answered with 408; what has arrived may take as
// long as it likes, an answer as well as a WebSocket.
func TestRequestTimeout(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	patient(t, s)
	patch(t, s, "gateways/default", `{"limits":{"request_timeout":"2s"}}`)
	// send writes a body in that many pieces, one each pause, and says how the answer begins and after what time.
	send := func(head string, pieces int, pause time.Duration) (string, time.Duration) {
		t.Helper()
		c, err := net.Dial("tcp", s.Proxy)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }() // Envoy may have
		t0 := time.Now()
		if err := c.SetDeadline(t0.Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, head+" HTTP/1.1\r\nHost: x.example.com\r\nContent-Length: 1000\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		go func() {
			for range pieces {
				time.Sleep(pause) // a slow client is the subject
				if _, err := c.Write(make([]byte, 1000/pieces)); err != nil {
					return // the answer has come
				}
			}
		}()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line), time.Since(t0)
	}
	if got, took := send("POST /", 100, 100*time.Millisecond); got != "HTTP/1.1 408 Request Timeout" ||
		took > 5*time.Second {
		t.Errorf("a body that takes 10 s: %s after %v", got, took)
	}
	if got, took := send("POST /", 10, 100*time.Millisecond); got != "HTTP/1.1 200 OK" {
		t.Errorf("a body that takes 1 s: %s after %v", got, took)
	}
	if got, took := send("POST /?after=4s", 1, 0); got != "HTTP/1.1 200 OK" || took < 4*time.Second {
		t.Errorf("an answer that takes 4 s: %s after %v", got, took)
	}
	c, err := net.Dial("tcp", s.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // the test is over
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x.example.com\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	time.Sleep(4 * time.Second) // twice the time that a request may take
	if _, err := io.WriteString(c, "still here\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); err != nil || line != "still here\n" {
		t.Errorf("a WebSocket after twice the time: %q, %v", line, err)
	}
	patch(t, s, "gateways/default", `{"limits":{"request_timeout":"0s"}}`)
	if got, took := send("POST /", 4, time.Second); got != "HTTP/1.1 200 OK" {
		t.Errorf("a body that takes 4 s, without a limit: %s after %v", got, took)
	}
}
