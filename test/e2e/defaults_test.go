package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// nobody are endpoints that refuse connections, as long as the test runs.
func nobody(t *testing.T, n int) (endpoints []any) {
	t.Helper()
	for i := range n {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", i+2))
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		endpoints = append(endpoints, map[string]any{"host": fmt.Sprintf("127.0.0.%d", i+2), "port": port})
	}
	return endpoints
}

// serve writes a service and its route, host NAME.test, and waits until they are live.
func serve(t *testing.T, s *harness.System, name string, service, route map[string]any) {
	t.Helper()
	spec := map[string]any{"hosts": []any{name + ".test"}, "backends": []any{map[string]any{"service": name}}}
	for k, v := range route {
		spec[k] = v
	}
	call(t, s, "POST", s.API+"/v1/apply?wait=live", map[string]any{"resources": []any{
		map[string]any{"kind": "Service", "name": name, "spec": service}, map[string]any{
			"kind": "Route", "name": name,
			"spec": spec,
		},
	}}, 200)
}

// TestDefaults: what people expect of a proxy that they have told nothing.
func TestDefaults(t *testing.T) {
	s := start(t, "--no-demo")
	t.Run("group", func(t *testing.T) { // waits for its parallel parts before the system stops
		for name, part := range map[string]func(*testing.T, *harness.System){
			"most endpoints are down": defaultsPanic, "checks are out": defaultsUnchecked,
			"a bad endpoint of two":    defaultsOutlier,
			"an answer that has begun": defaultsDownload, "no answer": defaultsSilence, "closed at once": defaultsClose,
			"no content":            defaultsNoContent,
			"guards that are empty": defaultsGuards,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				part(t, s)
			})
		}
	})
}

// defaultsPanic: two of three endpoints are down, and no request goes there. With the threshold at Envoy's own 50
// two thirds would.
func defaultsPanic(t *testing.T, s *harness.System) {
	serve(t, s, "down", map[string]any{
		"endpoints": append(backends(t, says(200, "ok")), nobody(t, 2)...),
		"health_check": map[string]any{
			"tcp": map[string]any{}, "interval": "100ms", "timeout": "1s",
			"unhealthy_threshold": 1,
		},
	}, map[string]any{"retry": map[string]any{"conditions": []string{"cancelled"}}}) // none, which would hide it
	eventually(t, func() string {
		if got := statuses(s, "down.test", 60); got[200] != 60 {
			return fmt.Sprintf("with one of three endpoints up: %v", got)
		}
		return ""
	})
	call(t, s, "PATCH", s.API+"/v1/services/down?wait=live", map[string]any{"spec": map[string]any{"panic_threshold": 50}},
		200)
	eventually(t, func() string {
		if got := statuses(s, "down.test", 60); got[503] < 20 {
			return fmt.Sprintf("with panic_threshold 50: %v", got)
		}
		return ""
	})
}

// defaultsUnchecked: endpoints that take the place of all others serve while the answers to their first checks are
// out, and a new service of which no check comes back is live once the first has had its time.
func defaultsUnchecked(t *testing.T, s *harness.System) {
	asked, release := make(chan struct{}, 10), make(chan struct{})
	defer close(release)
	hangs := func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			asked <- struct{}{}
			<-release
		}
	}
	service := func(timeout string, endpoints []any) map[string]any {
		return map[string]any{
			"endpoints":    endpoints,
			"health_check": map[string]any{"http": map[string]any{"path": "/health"}, "interval": "60s", "timeout": timeout},
		}
	}
	serve(t, s, "unchecked", service("60s", backends(t, says(200, "ok"))), nil)
	serve(t, s, "unchecked", service("60s", backends(t, hangs)), nil)
	<-asked
	if got := statuses(s, "unchecked.test", 20); got[200] != 20 {
		t.Errorf("before the first check is answered: %v", got)
	}
	serve(t, s, "unanswered", service("500ms", backends(t, hangs)), nil)
	if got := statuses(s, "unanswered.test", 20); got[200] != 20 {
		t.Errorf("after the first check was not answered: %v", got)
	}
}

// defaultsOutlier: of two endpoints the one that answers 500 is ejected.
func defaultsOutlier(t *testing.T, s *harness.System) {
	serve(t, s, "outlier", map[string]any{
		"endpoints":         backends(t, says(200, "ok"), says(500, "no")),
		"outlier_detection": map[string]any{"consecutive_5xx": 3, "interval": "100ms", "base_ejection_time": "600s"},
	}, nil)
	eventually(t, func() string {
		if got := statuses(s, "outlier.test", 40); got[200] != 40 {
			return fmt.Sprintf("%v", got)
		}
		return ""
	})
}

// defaultsDownload: an answer that has begun is not cut, neither after the 15 s that it has to begin nor after a
// shorter time that is set.
func defaultsDownload(t *testing.T, s *harness.System) {
	const pieces = 18
	endpoints := backends(t, func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for range pieces {
			_, _ = io.WriteString(w, "piece\n")
			w.(http.Flusher).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	})
	serve(t, s, "download", map[string]any{"endpoints": endpoints}, nil)
	serve(t, s, "download-set", map[string]any{"endpoints": endpoints}, map[string]any{"response_headers_timeout": "1s"})
	done := make(chan string, 2)
	for _, host := range []string{"download.test", "download-set.test"} {
		go func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Proxy+"/", nil)
			if err != nil {
				done <- err.Error()
				return
			}
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				done <- err.Error()
				return
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if n := bytes.Count(body, []byte("\n")); err != nil || n != pieces {
				done <- fmt.Sprintf("%s: %d of %d pieces, %v", host, n, pieces, err)
				return
			}
			done <- ""
		}()
	}
	for range 2 {
		if complaint := <-done; complaint != "" {
			t.Error(complaint)
		}
	}
}

// defaultsSilence: a backend that does not begin to answer is answered for, each attempt in its time.
func defaultsSilence(t *testing.T, s *harness.System) {
	var asked atomic.Int32
	endpoints := backends(t, func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-r.Context().Done()
	})
	serve(t, s, "silent", map[string]any{"endpoints": endpoints}, map[string]any{"response_headers_timeout": "300ms"})
	began := time.Now()
	if got := statuses(s, "silent.test", 1); got[504] != 1 || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", got, time.Since(began))
	}
	asked.Store(0)
	serve(t, s, "silent", map[string]any{"endpoints": endpoints}, map[string]any{
		"response_headers_timeout": "300ms",
		"retry":                    map[string]any{"attempts": 2, "conditions": []any{"gateway-error"}},
	})
	if got := statuses(s, "silent.test", 1); got[504] != 1 || asked.Load() != 3 {
		t.Errorf("%v after %d attempts", got, asked.Load())
	}
	refused := call(t, s, "PATCH", s.API+"/v1/routes/silent", map[string]any{"spec": map[string]any{"timeout": "100ms"}},
		422)
	if got := fmt.Sprint(refused["errors"]); !strings.Contains(got, "$.spec.response_headers_timeout") {
		t.Error(got)
	}
}

// defaultsClose: where the client wants the connection closed after the answer, it is, whoever answers.
func defaultsClose(t *testing.T, s *harness.System) {
	serve(t, s, "close-web", map[string]any{"endpoints": backends(t, says(200, "ok"))}, nil)
	call(t, s, "PUT", s.API+"/v1/routes/close-direct?wait=live",
		map[string]any{"spec": map[string]any{
			"hosts":           []any{"close-direct.test"},
			"direct_response": map[string]any{"status": 200, "body": "ok"},
		}}, 201)
	call(t, s, "PUT", s.API+"/v1/auth-policies/close",
		map[string]any{"spec": map[string]any{
			"tokens": []any{map[string]any{"name": "a", "value": strings.Repeat("x", 32)}},
		}}, 201)
	serve(t, s, "close-auth", map[string]any{"endpoints": backends(t, says(200, "ok"))},
		map[string]any{"auth_policy": "close"})
	for host, status := range map[string]string{
		"close-web.test": "200", "close-direct.test": "200",
		"close-auth.test": "401", "close-unknown.test": "404",
	} {
		for _, request := range []string{
			"GET / HTTP/1.0\r\nHost: %s\r\n\r\n", "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
		} {
			began := time.Now()
			const rounds = 5
			for range rounds {
				raw := rawAnswer(t, s, fmt.Sprintf(request, host))
				if !strings.Contains(raw[:min(len(raw), 20)], " "+status+" ") {
					t.Fatalf("%s: %.200s", host, raw)
				}
			}
			if took := time.Since(began); took > rounds*time.Second/2 {
				t.Errorf("%s, %.20q: %d answers ended after %s", host, request, rounds, took)
			}
		}
	}
}

// rawAnswer is everything up to the end of the connection.
func rawAnswer(t *testing.T, s *harness.System, request string) string {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// defaultsNoContent: a response without a body does not state a length (RFC 9110, 8.6), and a body for one is
// refused.
func defaultsNoContent(t *testing.T, s *harness.System) {
	direct := func(spec map[string]any) map[string]any {
		return map[string]any{"spec": map[string]any{"hosts": []any{"empty.test"}, "direct_response": spec}}
	}
	call(t, s, "PUT", s.API+"/v1/routes/empty?wait=live",
		direct(map[string]any{"status": 204, "content_type": "text/plain"}), 201)
	for _, method := range []string{"GET", "POST", "HEAD"} {
		raw := rawAnswer(t, s, method+" / HTTP/1.1\r\nHost: empty.test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		if lower := strings.ToLower(raw); !strings.HasPrefix(raw, "HTTP/1.1 204 ") ||
			strings.Contains(lower, "content-length") || strings.Contains(lower, "transfer-encoding") {
			t.Errorf("%s: %s", method, raw)
		}
	}
	if got := fmt.Sprint(call(t, s, "PUT", s.API+"/v1/routes/empty", direct(map[string]any{"status": 204, "body": "x"}),
		422)["errors"]); !strings.Contains(got, "$.spec.direct_response.body") {
		t.Error(got)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, s.API+"/v1/routes", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent || resp.Header.Values("Content-Length") != nil ||
		len(resp.TransferEncoding) > 0 {
		t.Errorf("OPTIONS: %s %v", resp.Status, resp.Header)
	}
}

// defaultsGuards: a guard whose value was forgotten does not let everything through.
func defaultsGuards(t *testing.T, s *harness.System) {
	for _, name := range []string{"If-Match", "If-None-Match", "Idempotency-Key"} {
		for _, value := range []string{"", " "} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.API+"/v1/services/guarded",
				strings.NewReader(`{"spec":{}}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set(name, value)
			resp, err := s.HTTP().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), name+" is empty") {
				t.Errorf("%s %q: %d %s %v", name, value, resp.StatusCode, body, err)
			}
		}
	}
	call(t, s, "GET", s.API+"/v1/services/guarded", nil, 404)
}
