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
	cmd.Env = append(os.Environ(), "API="+s.API, "PROXY=http://"+s.Proxy, "ADMIN="+s.Admin, "BACKEND_PORT="+echo(t),
		"MARCHPROXY_TOKEN_FILE="+s.TokenFile())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLicense: features gate paths and routes; an ended license keeps community paths, and everything in
// its time of grace; the key is nowhere to be seen.
func TestLicense(t *testing.T) {
	s := start(t, "--no-demo")
	key := licenseKey()
	put := func(spec string, status int) map[string]any {
		t.Helper()
		return call(t, s, "PUT", s.API+"/v1/licenses/main?wait=live", `{"spec":{"gates":[{"feature":"multi-cloud",`+
			`"paths":["/api/v1/multi-cloud"]}]`+spec+`}}`, status)
	}
	wrong := put(`,"key":"`+key[:len(key)-1]+`0"`, 422)
	if text := wrong["errors"].([]any)[0].(map[string]any); text["path"] != "$.spec.key" ||
		strings.Contains(text["message"].(string), key[:20]) {
		t.Errorf("a wrong key: %v", text)
	}
	put("", 201)
	call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live", `{"spec":{"license":"main"}}`, 200)
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/all?wait=live", `{"spec":{"backends":[{"service":"web"}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/numa?wait=live", `{"spec":{"path":{"prefix":"/numa"},"features":["numa"],`+
		`"backends":[{"service":"web"}]}}`, 201)
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
	for _, place := range []string{
		s.API + "/v1/licenses/main", s.API + "/v1/revisions", s.API + "/v1/audit",
		s.Admin + "/config_dump",
	} {
		_, raw, err := s.Call(t.Context(), "GET", place, nil)
		if err != nil || strings.Contains(string(raw), key) {
			t.Errorf("%s shows the key, or does not answer (%v)", place, err)
		}
	}
	keptFromLogs(t, s, key)
}

// keptFromLogs looks for a key in everything that the system has written about itself.
func keptFromLogs(t *testing.T, s *harness.System, key string) {
	t.Helper()
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

// TestLicenseKey: LICENSE_KEY becomes the License default, once; another key takes its place at the next start, and
// what was said about it stays. A wrong one stops the start, and the key is nowhere to be seen.
func TestLicenseKey(t *testing.T) {
	key := licenseKey()
	t.Setenv("LICENSE_KEY", key)
	s := start(t, "--no-demo")
	at := s.API + "/v1/licenses/default"
	spec := func() map[string]any {
		t.Helper()
		return call(t, s, "GET", at, nil, 200)["spec"].(map[string]any)
	}
	if facts := spec()["facts"].(map[string]any); facts["has_key"] != true || facts["checksum"] != key[len(key)-4:] {
		t.Errorf("the license has the key %v", facts)
	}
	if gw := call(t, s, "GET", s.API+"/v1/gateways/default", nil,
		200)["spec"].(map[string]any); gw["license"] != "default" {
		t.Errorf("the gateway's license is %v", gw["license"])
	}
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/r?wait=live", `{"spec":{"features":["numa"],"backends":[{"service":"web"}]}}`, 201)
	visit(t, s, "a.test").want(402, "/", "")
	call(t, s, "PATCH", at+"?wait=live", `{"spec":{"features":["numa"]},"labels":{"by":"operator"}}`, 200)
	call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live", `{"labels":{"by":"operator"}}`, 200)
	visit(t, s, "a.test").want(200, "/", "")

	revision := func() any { return call(t, s, "GET", s.API+"/v1/status", nil, 200)["revision"] }
	again := func(key string) error {
		t.Helper()
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		t.Setenv("LICENSE_KEY", key)
		return s.Run(t.Context())
	}
	before := revision()
	if err := again(key); err != nil {
		t.Fatal(err)
	}
	if after := revision(); after != before {
		t.Errorf("a start with the same key makes a revision: %v after %v", after, before)
	}
	const rest = "PENG-TEST-TEST-TEST-0002"
	other := rest + "-" + license.Checksum(rest)
	if err := again(other); err != nil {
		t.Fatal(err)
	}
	got := call(t, s, "GET", at, nil, 200)
	if facts := got["spec"].(map[string]any)["facts"].(map[string]any); facts["checksum"] != other[len(other)-4:] {
		t.Errorf("after a start with another key the license has %v", facts)
	}
	if got["labels"].(map[string]any)["by"] != "operator" {
		t.Errorf("the operator's labels are gone: %v", got)
	}
	visit(t, s, "a.test").want(200, "/", "")
	for _, place := range []string{at, s.API + "/v1/revisions", s.API + "/v1/audit", s.Admin + "/config_dump"} {
		_, raw, err := s.Call(t.Context(), "GET", place, nil)
		if err != nil || strings.Contains(string(raw), key) || strings.Contains(string(raw), other) {
			t.Errorf("%s shows a key, or does not answer (%v)", place, err)
		}
	}

	wrong := key[:len(key)-1] + "0"
	err := again(wrong)
	if err == nil || !strings.Contains(err.Error(), "LICENSE_KEY has a last group that does not fit") ||
		strings.Contains(err.Error(), wrong[:20]) {
		t.Errorf("a start with a wrong key: %v", err)
	}
	// Without the variable everything stays.
	t.Setenv("LICENSE_KEY", "")
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	visit(t, s, "a.test").want(200, "/", "")
	for _, k := range []string{key, other, wrong} {
		keptFromLogs(t, s, k)
	}
}
