package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/test/harness"
)

func summary(t *testing.T, s *harness.System) (out api.MetricsSummary) {
	t.Helper()
	readInto(t, s, "/v1/metrics/summary", &out)
	return out
}

func readInto(t *testing.T, s *harness.System, path string, into any) {
	t.Helper()
	status, raw, err := s.Call(t.Context(), "GET", s.API+path, "")
	if err != nil || status != 200 {
		t.Fatalf("GET %s: %d %s %v", path, status, raw, err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

// soon is [eventually] for what takes some looks of the one who runs the Envoy, one of which is every ten seconds.
func soon(t *testing.T, complaint func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), racetest.Deadline(2*time.Minute))
	defer cancel()
	last := ""
	if err := harness.Await(ctx, func() bool { last = complaint(); return last == "" }); err != nil {
		t.Fatal(last)
	}
}

// TestTrafficAndHealth: what clients and endpoints have met at the Envoy is what the API says, to the request; an Envoy
// that nobody tells of is named, and one that hangs makes what it said before old, and nothing healthy.
func TestTrafficAndHealth(t *testing.T) {
	s := harness.ForTest(t, nil)
	alive := http.NewServeMux()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	alive.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(120 * time.Millisecond) // it is what is measured
		}
		w.WriteHeader(http.StatusOK)
	})
	server := &http.Server{Handler: alive, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(lis) }() // closed below
	t.Cleanup(func() { _ = server.Close() })
	port := lis.Addr().(*net.TCPAddr).Port
	// Nobody listens on the second one: the port is taken from a listener that is closed again.
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	deadPort := gone.Addr().(*net.TCPAddr).Port
	_ = gone.Close()

	s.Want(t, "PUT", s.API+"/v1/services/watched", map[string]any{"spec": map[string]any{
		"endpoints": []any{
			map[string]any{"host": "127.0.0.1", "port": port}, map[string]any{"host": "127.0.0.1", "port": deadPort},
		},
		"health_check": map[string]any{"http": map[string]any{"path": "/"}, "interval": "1s", "unhealthy_threshold": 1},
	}}, 201)
	s.Want(t, "PUT", s.API+"/v1/services/trusted", map[string]any{"spec": map[string]any{
		"endpoints": []any{map[string]any{"host": "127.0.0.1", "port": port}},
	}}, 201)
	s.Want(t, "PUT", s.API+"/v1/routes/watched?wait=live", map[string]any{"spec": map[string]any{
		"hosts": []any{"watched.test"}, "backends": []any{map[string]any{"service": "watched"}},
	}}, 201)
	for host, status := range map[string]int{"answers": 503, "nobody": 404} {
		s.Want(t, "PUT", s.API+"/v1/routes/"+host+"?wait=live", map[string]any{"spec": map[string]any{
			"hosts": []any{host + ".test"}, "direct_response": map[string]any{"status": status, "body": "no\n"},
		}}, 201)
	}

	// The one that is dead is found, the one that is alive is not, and of a service without checks nobody says anything.
	var health api.ServiceHealth
	soon(t, func() string {
		health = api.ServiceHealth{}
		readInto(t, s, "/v1/services/watched/health", &health)
		states := map[int32]string{}
		for _, e := range health.Endpoints {
			states[e.Port] = e.State
		}
		if !health.Checked || states[int32(port)] != "healthy" || states[int32(deadPort)] != "unhealthy" ||
			len(health.Endpoints) != 2 || len(health.Proxies) != 1 || health.Proxies[0].State != "current" {
			return fmt.Sprintf("%+v", health)
		}
		return ""
	})
	for _, e := range health.Endpoints {
		if e.Port == int32(deadPort) && e.Views[0].Reason != "health_check" {
			t.Errorf("%+v", e)
		}
	}
	var trusted api.ServiceHealth
	readInto(t, s, "/v1/services/trusted/health", &trusted)
	if trusted.Checked || trusted.Endpoints[0].State != "unchecked" || len(trusted.Proxies) != 0 {
		t.Errorf("without checks: %+v", trusted)
	}
	if sum := summary(t, s); len(sum.Unhealthy) != 1 || sum.Unhealthy[0].Service != "watched" ||
		!strings.HasSuffix(sum.Unhealthy[0].Endpoints[0].Address, fmt.Sprintf(":%d", deadPort)) {
		t.Errorf("%+v", sum.Unhealthy)
	}

	printed(t, s, []string{"health"}, "watched", fmt.Sprintf(":%d", deadPort), "health check")
	printed(t, s, []string{"health", "watched"}, "healthy", "unhealthy", "health check at ")
	printed(t, s, []string{"health", "trusted"}, "unchecked", "nobody looks if they answer")

	// Every request is counted, once, by its class.
	before := summary(t, s).Total
	for host, n := range map[string]int{"watched.test": 30, "answers.test": 20, "nobody.test": 10} {
		path := "/"
		if host == "watched.test" {
			path = "/slow"
		}
		for range n {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Proxy+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := s.HTTP().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
	}
	soon(t, func() string {
		now := summary(t, s).Total
		if now.Requests-before.Requests != 60 || now.Answers.Success-before.Answers.Success != 30 ||
			now.Answers.ServerError-before.Answers.ServerError != 20 ||
			now.Answers.ClientError-before.Answers.ClientError != 10 {
			return fmt.Sprintf("%+v after %+v", now, before)
		}
		// Half of them took 120 ms, and a step of the counts goes from 120 to 200.
		if now.Latency == nil || now.Latency.P99 < 80 || now.Latency.P99 > 300 {
			return fmt.Sprintf("latency %+v", now.Latency)
		}
		return ""
	})

	printed(t, s, []string{"traffic"}, "default", " ms", "1 service with endpoints that fail")

	// One that no agent runs is named, and is in no figure.
	lone, err := s.StartEnvoy(t.Context(), "lone", s.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lone.Close)
	soon(t, func() string {
		sum := summary(t, s)
		if sum.SilentProxies != 1 || sum.Silent[0].Proxy != "lone" || sum.Silent[0].State != "missing" ||
			sum.Total.Proxies != 2 || sum.Total.Reporting != 1 {
			return fmt.Sprintf("%+v %+v", sum.Silent, sum.Total)
		}
		return ""
	})

	// One that hangs: what it said gets old, and says nothing any more.
	pid := s.Pid("envoy")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	soon(t, func() string {
		health = api.ServiceHealth{}
		readInto(t, s, "/v1/services/watched/health", &health)
		for _, e := range health.Endpoints {
			if e.State != "unknown" {
				return fmt.Sprintf("%+v", health)
			}
		}
		for _, p := range health.Proxies {
			if p.Proxy != "lone" && (p.State != "old" || p.AgeSeconds < 30) {
				return fmt.Sprintf("%+v", p)
			}
		}
		return ""
	})
	if sum := summary(t, s); sum.Total.Reporting != 0 || len(sum.Unhealthy) != 0 {
		t.Errorf("what is old is said as new: %+v %+v", sum.Total, sum.Unhealthy)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	soon(t, func() string {
		if sum := summary(t, s); sum.Total.Reporting != 1 || len(sum.Unhealthy) != 1 {
			return fmt.Sprintf("%+v %+v", sum.Total, sum.Unhealthy)
		}
		return ""
	})
}

// printed has a command print what a person reads, with all of these words.
func printed(t *testing.T, s *harness.System, args []string, words ...string) {
	t.Helper()
	out, err := s.CLI(t.Context(), args...).Output()
	if err != nil {
		t.Fatalf("marchproxy %s: %v", strings.Join(args, " "), err)
	}
	for _, word := range words {
		if !strings.Contains(string(out), word) {
			t.Errorf("marchproxy %s does not say %q:\n%s", strings.Join(args, " "), word, out)
		}
	}
}
