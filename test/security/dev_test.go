package security

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/marchproxy/marchproxy/pkg/bus"
	"github.com/marchproxy/marchproxy/pkg/identity"
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
		words := append(as, append([]string{
			"curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-d",
			document,
		}, args...)...)
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
	if out, err := exec.CommandContext(t.Context(), nobody[0], append(nobody[1:], "cat", s.TokenFile())...).
		CombinedOutput(); err == nil {
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

// TestDevsUsersAtNATS: dev's parts are users with the rights that pki gives theirs, and who has neither key nor
// password is nobody.
func TestDevsUsersAtNATS(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	all, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(all)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	for _, user := range []*url.Userinfo{
		nil, url.User(password), url.UserPassword("dev", "wrong"),
		url.UserPassword("api", password),
	} {
		if nc, err := nats.Connect((&url.URL{Scheme: "nats", Host: u.Host, User: user}).String()); err == nil {
			nc.Close()
			t.Errorf("NATS lets %v in", user)
		}
	}
	for part, forbidden := range map[string]string{
		"xds": "marchproxy.config.v1.revision",
		"api": "marchproxy.status.v1.xds.dev",
	} {
		var seed string
		for _, setting := range environment(t, s.Pid(part)) {
			if after, found := strings.CutPrefix(setting, "NATS_NKEY="); found {
				seed = after
			}
			if strings.Contains(setting, password) {
				t.Errorf("%s knows the password of who may do everything", part)
			}
		}
		options, err := bus.Options(identity.Settings{Seed: seed}, nil)
		if err != nil {
			t.Fatal(err)
		}
		refusals := make(chan error, 10)
		nc, err := nats.Connect("nats://"+u.Host, append(options,
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refusals <- err }))...)
		if err != nil {
			t.Fatalf("%s: %v", part, err)
		}
		t.Cleanup(nc.Close)
		if err := errors.Join(nc.Publish(forbidden, []byte("{}")), nc.Flush()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-refusals:
			if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), forbidden) {
				t.Errorf("%s: %v", part, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s may publish to %s", part, forbidden)
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
