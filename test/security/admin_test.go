package security

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// TestAdminInterface: Envoy's admin interface is a socket of its user's. What the integration guide asks on 9901 is
// answered there, and nothing that changes something, nor anything secret: not the key that Envoy connects with, nor
// what a policy or a certificate holds.
func TestAdminInterface(t *testing.T) {
	s := harness.ForTest(t, nil)
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	const secret = "a-sentinel-that-is-shared-with-nobody-at-all"
	ok(t, s, "PUT", s.API+"/v1/auth-policies/p?wait=live",
		`{"spec":{"jwt":{"keys":[{"kid":"k","algorithm":"HS256","secret":"`+secret+`"}]},
		"tokens":[{"name":"n","value":"`+secret+`-token"}]}}`)
	ok(t, s, "PUT", s.API+"/v1/routes/r?wait=live", `{"spec":{"hosts":["r.example.com"],"auth_policy":"p",
		"direct_response":{"status":200,"body":"it is there"}}}`)
	whole(t, s, filepath.Join(s.Dir, "admin.sock"), s.Admin, key, secret)
}

// TestAgentsAdminInterface: the same where the agent runs Envoy, and marchproxy-agent admin asks the whole of it.
func TestAgentsAdminInterface(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	envoy, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	ports, err := porttest.Take(2)
	if err != nil {
		t.Fatal(err)
	}
	ok(t, s, "PUT", s.API+"/v1/gateways/edge",
		fmt.Sprintf(`{"spec":{"listeners":[{"name":"http","port":%d,"address":"127.0.0.1"}],
		"api_keys":[{"name":"k","key":%q}]}}`, ports[0], key))
	const body = "it is there"
	ok(t, s, "PUT", s.API+"/v1/routes/r",
		`{"spec":{"gateways":["edge"],"direct_response":{"status":200,"body":"`+body+`"}}}`)
	dir := t.TempDir()
	door := "127.0.0.1:" + strconv.Itoa(ports[1])
	env := []string{
		"XDS_SERVER=" + s.GRPC, "CLUSTER_API_KEY=" + key, "GATEWAY=edge", "ENVOY_PATH=" + envoy, "ENVOY_ADMIN_ADDR=" + door,
		"ENVOY_CONCURRENCY=1", "MARCHPROXY_RUN_DIR=" + dir, "LOGLEVEL=error",
	}
	a, err := harness.StartAgent(env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Stop(syscall.SIGTERM) }) // what it says of its end is not looked at here
	if err := a.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole(t, s, filepath.Join(dir, "admin.sock"), "http://"+door, key, "no other")
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	admin := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "marchproxy-agent"), append([]string{"admin"},
			args...)...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := admin("/config_dump"); err != nil || !strings.Contains(out, key) {
		t.Errorf("admin /config_dump lacks the key: %v", err)
	}
	if out, err := admin("POST", "/logging?level=warning"); err != nil {
		t.Errorf("admin POST /logging: %s %v", out, err)
	}
	if out, err := admin("/nothing"); err == nil || !strings.Contains(out, "404") {
		t.Errorf("admin /nothing: %s %v", out, err)
	}
}

// whole looks at a socket and at the door before it.
func whole(t *testing.T, s *harness.System, socket, door string, secrets ...string) {
	t.Helper()
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != 0o600 {
		t.Fatalf("%s: %v %v", socket, info, err)
	}
	for path, has := range map[string]string{
		"/stats": "xds", "/stats/prometheus": "envoy_http", "/ready": "LIVE", "/clusters": "xds::",
		"/config_dump":             "it is there",
		"/config_dump?include_eds": "it is there", "/config_dump?resource=static_clusters": "xds",
	} {
		raw := ok(t, s, "GET", door+path, nil)
		if !strings.Contains(string(raw), has) {
			t.Errorf("%s lacks %q", path, has)
		}
		for _, secret := range secrets {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s shows %q", path, secret)
			}
		}
	}
	raw := ok(t, s, "GET", door+"/config_dump", nil)
	var dump struct {
		Configs []map[string]any `json:"configs"`
	}
	if err := json.Unmarshal(raw, &dump); err != nil || len(dump.Configs) < 5 {
		t.Errorf("the dump: %d parts, %v", len(dump.Configs), err)
	}
	for path, method := range map[string]string{
		"/quitquitquit": "POST", "/runtime_modify?a=b": "POST", "/logging?level=debug": "POST", "/healthcheck/fail": "POST",
		"/drain_listeners": "POST", "/reset_counters": "POST", "/cpuprofiler?enable=y": "POST", "/server_info": "GET",
		"/certs": "GET", "/": "GET",
		"/config_dump": "POST", "/ready": "PUT",
	} {
		if status, raw, err := s.Call(t.Context(), method, door+path, nil); err != nil || status != http.StatusForbidden {
			t.Errorf("%s %s: %d %s %v", method, path, status, raw, err)
		}
	}
	if raw := ok(t, s, "GET", door+"/ready", nil); !strings.Contains(string(raw), "LIVE") {
		t.Errorf("after that: %s", raw)
	}
}
