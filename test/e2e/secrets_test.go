package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// TestSecretsStaySecret: after a session that uses every kind of secret, none is in a log, an event, an answer or a
// command line.
func TestSecretsStaySecret(t *testing.T) {
	s := start(t, "--no-demo", "--log-level", "debug")
	secrets := map[string]string{"an opaque token": opaque, "an HMAC secret": firstSecret}
	raw, err := os.ReadFile(filepath.Join(s.Dir, "secrets.json"))
	if err != nil {
		t.Fatal(err)
	}
	var own map[string]string
	if err := json.Unmarshal(raw, &own); err != nil {
		t.Fatal(err)
	}
	for name, v := range own {
		secrets[name] = v
	}

	chain, private := newAuthority(t).issue(t, "secret.example.com")
	secrets["a private key"] = strings.Split(private, "\n")[1] // its first line: the rest differs by wrapping alone
	admin := call(t, s, "POST", s.API+"/v1/tokens", `{"name":"root","role":"admin"}`, 201)["token"].(string)
	secrets["an API token"] = admin
	bearer := func(method, path string, body string, token string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.API+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	spec := func(v map[string]any) string {
		raw, err := json.Marshal(map[string]any{"spec": v})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	wrong := "mpt_a-token-that-opens-nothing-at-all-0123456789"
	secrets["a wrong token"] = wrong
	certificate := spec(map[string]any{"chain": chain, "private_key": private})
	policy := fmt.Sprintf(`{"spec":{"jwt":{"keys":[%s]},"tokens":[{"name":"machine","value":%q}]}}`,
		hmacKey("one", firstSecret), opaque)
	for _, c := range []struct {
		method, path, body, token string
		status                    int
	}{
		{"PUT", "/v1/certificates/c", certificate, admin, 201},
		{"PUT", "/v1/certificates/c", spec(map[string]any{"chain": "no chain", "private_key": private}), admin, 422},
		{"PUT", "/v1/certificates/c", `{"spec":{"private_key":"` + strings.Split(private, "\n")[1], admin, 400},
		{"PUT", "/v1/auth-policies/p", policy, admin, 201},
		{"PUT", "/v1/auth-policies/q", strings.Replace(policy, "HS256", "XS256", 1), admin, 422},
		{"PUT", "/v1/routes/r?wait=live", `{"spec":{"hosts":["r.example.com"],"auth_policy":"p",` +
			`"direct_response":{"status":200}}}`, admin, 201},
		{"GET", "/v1/routes", "", wrong, 401},
		{"DELETE", "/v1/tokens/none", "", wrong, 401},
	} {
		if got := bearer(c.method, c.path, c.body, c.token); got != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, got, c.status)
		}
	}
	for _, token := range []string{opaque, signed(t, "one", firstSecret, nil), "rubbish"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Proxy+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "r.example.com"
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	s.Kill("api", "xds") // what they say at a start counts, too
	live(t, s, "after", "restart")

	places := map[string]string{}
	if err := filepath.WalkDir(filepath.Join(s.Dir, "log"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		places[path] = string(raw)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{
		s.API + "/v1/certificates", s.API + "/v1/auth-policies", s.API + "/v1/gateways", s.API + "/v1/revisions",
		s.API + "/v1/revisions/2/diff?against=6", s.API + "/v1/audit", s.API + "/v1/tokens",
		s.API + "/v1/status", s.API + "/v1/proxies", s.API + "/metrics", s.XDS + "/v1/resources", s.XDS + "/v1/version",
		s.XDS + "/metrics",
	} {
		_, raw, err := s.Call(t.Context(), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		places[url] = string(raw)
	}
	for _, part := range []string{"postgres", "nats", "api", "xds", "envoy"} {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.Pid(part)))
		if err != nil {
			t.Fatal(err)
		}
		places["the command line of "+part] = string(raw)
	}
	places["the events"] = events(t, s)
	if len(places) < 20 || !strings.Contains(places["the events"], "auth_policy") {
		t.Fatalf("%d places", len(places))
	}
	for where, text := range places {
		for name, secret := range secrets {
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
				if strings.Contains(text, form) {
					t.Errorf("%s is in %s", name, where)
				}
			}
		}
	}
}

// TestSettingsStaySecret: what a program says of a wrong setting does not repeat a secret in it.
func TestSettingsStaySecret(t *testing.T) {
	const secret = "hunter2-hunter2"
	good := map[string]string{
		"DATABASE_URL": "postgresql://u:p@127.0.0.1:1/db", "NATS_URL": "nats://127.0.0.1:1",
		"SECRET_KEY": "0123456789abcdef0123456789abcdef", "MARCHPROXY_STATE_DIR": t.TempDir(),
	}
	for _, c := range []struct{ program, name, value string }{
		{"api", "DATABASE_URL", "postgresql://user:" + secret + "@127.0.0.1:1/db"},
		{"api", "DATABASE_URL", "postgresql://user:" + secret + " @127.0.0.1:x/db"},
		{"api", "DATABASE_URL", "postgresql://user:" + secret + "@host.invalid/db"},
		{"api", "SECRET_KEY", secret[:9]},
		{"xds", "NATS_URL", "nats://" + secret + " @127.0.0.1:x"},
		{"xds", "SECRET_KEY", secret[:9]},
	} {
		t.Run(c.program+" "+c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, harness.ProgramForTest(t, "marchproxy-"+c.program))
			for k, v := range good {
				if k != c.name {
					cmd.Env = append(cmd.Env, k+"="+v)
				}
			}
			cmd.Env = append(cmd.Env, c.name+"="+c.value, "LOGLEVEL=debug")
			out, err := cmd.CombinedOutput()
			if err == nil || ctx.Err() != nil {
				t.Fatalf("it starts with %s: %v\n%s", c.value, err, out)
			}
			if len(out) == 0 || strings.Contains(string(out), secret[:9]) {
				t.Errorf("it says:\n%s", out)
			}
		})
	}
}
