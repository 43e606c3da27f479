package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

func bin(t *testing.T) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "bin", "marchproxy")
}
