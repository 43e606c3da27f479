package e2e

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/test/harness"
)

// TestWalkthrough: the integration guide's commands, with its status codes.
func TestWalkthrough(t *testing.T) {
	s := start(t)
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", "walkthrough"))
	cmd.Env = append(os.Environ(), "API="+s.API, "PROXY=http://"+s.Proxy, "ADMIN="+s.Admin, "BACKEND_PORT="+echo(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func licenseKey() string {
	const rest = "PENG-TEST-TEST-TEST-0001"
	return rest + "-" + license.Checksum(rest)
}

// TestLicense: features gate paths and routes; an ended license keeps community paths, and everything in
// its time of grace; the key is nowhere to be seen.
func TestLicense(t *testing.T) {
	s := start(t, "--no-demo")
	key := licenseKey()
	put := func(spec string, status int) map[string]any {
		t.Helper()
		return call(t, s, "PUT", s.API+"/v1/licenses/main?wait=live", `{"spec":{"gates":[{"feature":"multi-cloud","paths":["/api/v1/multi-cloud"]}]`+spec+`}}`, status)
	}
	wrong := put(`,"key":"`+key[:len(key)-1]+`0"`, 422)
	if text := wrong["errors"].([]any)[0].(map[string]any); text["path"] != "$.spec.key" || strings.Contains(text["message"].(string), key[:20]) {
		t.Errorf("a wrong key: %v", text)
	}
	put("", 201)
	call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live", `{"spec":{"license":"main"}}`, 200)
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/all?wait=live", `{"spec":{"backends":[{"service":"web"}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/numa?wait=live", `{"spec":{"path":{"prefix":"/numa"},"features":["numa"],"backends":[{"service":"web"}]}}`, 201)
	v := visit(t, s, "a.test")
	paths := func(multiCloud, numa int) {
		t.Helper()
		v.want(200, "/api/basic", "")
		for _, path := range []string{"/api/v1/multi-cloud", "/api//v1/./multi-cloud/x"} {
			if body := v.want(multiCloud, path, ""); multiCloud == 402 && !strings.Contains(body, `"feature":"multi-cloud"`) {
				t.Errorf("%s: %s", path, body)
			}
		}
		v.want(numa, "/numa", "")
	}
	state := func() map[string]any {
		t.Helper()
		return call(t, s, "GET", s.API+"/v1/status", nil, 200)["licenses"].([]any)[0].(map[string]any)
	}
	paths(402, 402)
	if got := state(); got["state"] != "no_key" {
		t.Errorf("without a key: %v", got)
	}
	put(`,"key":"`+key+`","features":["multi-cloud"]`, 200)
	paths(200, 402)
	put(`,"features":["multi-cloud","numa"]`, 200) // the key is kept
	paths(200, 200)
	if got := v.want(200, "/numa", "", "X-License-Key: "+key); !strings.Contains(got, "X-License-Key=;") {
		t.Errorf("a client's license header reaches the backend: %s", got)
	}
	yesterday := time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)
	put(`,"features":["multi-cloud","numa"],"expires_at":"`+yesterday+`"`, 200)
	paths(200, 200)
	if got := state(); got["state"] != "grace" || !strings.Contains(got["warning"].(string), "renew") {
		t.Errorf("in the time of grace: %v", got)
	}
	put(`,"features":["multi-cloud","numa"],"expires_at":"`+yesterday+`","grace_period":"1h"`, 200)
	paths(402, 402)
	if got := state(); got["state"] != "expired" || got["warning"] == "" {
		t.Errorf("after its end: %v", got)
	}
	for _, place := range []string{s.API + "/v1/licenses/main", s.API + "/v1/revisions", s.API + "/v1/audit", s.Admin + "/config_dump"} {
		_, raw, err := s.Call(t.Context(), "GET", place, nil)
		if err != nil || strings.Contains(string(raw), key) {
			t.Errorf("%s shows the key, or does not answer (%v)", place, err)
		}
	}
	logs, err := filepath.Glob(filepath.Join(s.Dir, "log", "*"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no logs", err)
	}
	for _, path := range logs {
		if raw, err := os.ReadFile(path); err != nil || strings.Contains(string(raw), key) {
			t.Errorf("%s has the key in it (%v)", path, err)
		}
	}
}

// secondEnvoy runs an Envoy of a gateway beside that of dev.
func secondEnvoy(t *testing.T, s *harness.System, gateway string) {
	t.Helper()
	path, err := exec.CommandContext(t.Context(), bin(t), "dev", "envoy-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	ports, err := harness.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := bootstrap.Render(bootstrap.Config{NodeID: "second", Gateway: gateway, XDSServer: s.GRPC, APIKey: key, AdminAddr: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))})
	if err != nil {
		t.Fatal(err)
	}
	boot := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(boot, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, strings.TrimSpace(string(path)), "-c", boot, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
}

func bin(t *testing.T) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "bin", "marchproxy")
}

// TestProxyLimit: one Envoy more than licensed answers 429, and the one that was there first keeps its
// seat, also over a restart of the xDS server; a higher limit gives the other one a seat.
func TestProxyLimit(t *testing.T) {
	s := start(t, "--no-demo")
	ports, err := harness.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	call(t, s, "PUT", s.API+"/v1/licenses/main", `{"spec":{"key":"`+licenseKey()+`","max_proxies":1}}`, 201)
	call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live", `{"spec":{"license":"main"}}`, 200)
	call(t, s, "PUT", s.API+"/v1/gateways/edge", `{"spec":{"license":"main","listeners":[{"name":"http","port":`+strconv.Itoa(ports[0])+`,"address":"127.0.0.1"}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/r?wait=live", `{"spec":{"gateways":["default","edge"],"direct_response":{"status":200,"body":"ok"}}}`, 201)
	first := &url.URL{Scheme: "http", Host: s.Proxy}
	second := &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))}
	status := func(u *url.URL) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	secondEnvoy(t, s, "edge")
	// The first answer that the second Envoy ever gives is a 429.
	eventually(t, func() string {
		if got := status(second); got == 0 || got == 404 {
			return "the second Envoy does not serve yet"
		} else if got != 429 {
			t.Errorf("the Envoy more than licensed answers %d", got)
		}
		return ""
	})
	if got := status(first); got != 200 {
		t.Errorf("the licensed Envoy answers %d", got)
	}
	licenses := func() map[string]any {
		return call(t, s, "GET", s.API+"/v1/status", nil, 200)["licenses"].([]any)[0].(map[string]any)
	}
	eventually(t, func() string {
		if l := licenses(); l["proxies"] != 2.0 || l["surplus"] != 1.0 {
			return "status does not tell of it"
		}
		return ""
	})
	call(t, s, "PATCH", s.API+"/v1/licenses/main?wait=live", `{"spec":{"max_proxies":2}}`, 200)
	if a, b := status(first), status(second); a != 200 || b != 200 {
		t.Errorf("with two seats: %d and %d", a, b)
	}
	call(t, s, "PATCH", s.API+"/v1/licenses/main?wait=live", `{"spec":{"max_proxies":1}}`, 200)
	if a, b := status(first), status(second); a != 200 || b != 429 {
		t.Errorf("with one seat again: %d and %d", a, b)
	}
	// The server that dealt the seats dies; whoever comes back first, the seat goes to who had it.
	if err := syscall.Kill(s.Pid("xds"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		_, raw, err := s.Call(t.Context(), "GET", s.XDS+"/metrics", nil)
		if err != nil || !strings.Contains(string(raw), "marchproxy_xds_proxies 2\n") {
			return "the Envoys are not back"
		}
		return ""
	})
	call(t, s, "PATCH", s.API+"/v1/licenses/main?wait=live", `{"labels":{"after":"restart"}}`, 200)
	if a, b := status(first), status(second); a != 200 || b != 429 {
		t.Errorf("after a restart of the xDS server: %d and %d", a, b)
	}
}
