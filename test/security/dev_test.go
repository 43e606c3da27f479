package security

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

const document = `{"version":"1","services":[{"name":"a","hosts":["127.0.0.1"],"port":1}],"routes":[]}`

// TestLoopbackIsNoCredential: who asks from the same machine is nobody for that.
func TestLoopbackIsNoCredential(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")

	// The token is for dev's own user, and is the only way into the api.
	if info, err := os.Stat(s.TokenFile()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v %v", info.Mode(), err)
	}
	curl := func(as []string, args ...string) string {
		t.Helper()
		words := append(as, append([]string{"curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-d", document}, args...)...)
		out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v %s", words, err, out)
		}
		return string(out)
	}
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"}
	config := s.XDS + "/v1/config?allow_empty=true"
	for _, c := range []struct {
		what, want string
		as, args   []string
	}{
		{"the api, without a token", "401", nil, []string{s.API + "/v1/apply"}},
		{"the api, as another user", "401", nobody, []string{s.API + "/v1/apply"}},
		{"the guide's request", "200", nil, []string{config}},
		{"the guide's request by another user", "401", nobody, []string{config}},
		{"by a page", "401", nil, []string{"-H", "Origin: http://evil.test", config}},
		{"by another name", "401", nil, []string{"-H", "Host: evil.test", config}},
	} {
		if got := curl(c.as, c.args...); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	if out, err := exec.CommandContext(t.Context(), nobody[0], append(nobody[1:], "cat", s.TokenFile())...).CombinedOutput(); err == nil {
		t.Errorf("another user reads the token: %s", out)
	}

	// Envoy runs as dev's user, and is asked by everybody.
	u, err := url.Parse(s.XDS)
	if err != nil {
		t.Fatal(err)
	}
	s.Want(t, http.MethodPost, s.API+"/v1/apply?wait=live&timeout=60s", `{"resources":[
		{"kind":"Service","name":"door","spec":{"endpoints":[{"host":"127.0.0.1","port":`+u.Port()+`}]}},
		{"kind":"Route","name":"door","spec":{"backends":[{"service":"door"}],"rewrite":{"host":"localhost"}}}]}`, 200)
	if got := curl(nil, "http://"+s.Proxy+"/v1/config?allow_empty=true"); got != "401" {
		t.Errorf("by way of the proxy: %s, want 401", got)
	}

	// Of what is in dev's environment, Envoy has nothing.
	for _, setting := range environment(t, s.Pid("envoy")) {
		switch name, _, _ := strings.Cut(setting, "="); name {
		case "PATH", "TMPDIR", "TZ", "MARCHPROXY_DEV_STATE":
		default:
			t.Errorf("Envoy has %s in its environment", name)
		}
	}
}

// environment is that of a process.
func environment(t *testing.T, pid int) []string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.Trim(string(raw), "\x00"), "\x00")
}
