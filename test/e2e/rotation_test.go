package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// TestSecretKey is the change of SECRET_KEY as docs/operations.md has it: what the old key sealed is
// sealed with the new one by writing everything once more, without anybody having the private keys.
func TestSecretKey(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	tls := fmt.Sprint(ports[0])
	a := newAuthority(t)
	chain, key := a.issue(t, "site.test")
	call(t, s, "POST", s.API+"/v1/apply?wait=live", map[string]any{"resources": []any{
		map[string]any{"kind": "Certificate", "name": "site", "spec": map[string]any{"chain": chain, "private_key": key}},
		map[string]any{"kind": "Gateway", "name": "default", "spec": map[string]any{
			"api_keys": keys(t, s),
			"listeners": []any{
				map[string]any{"name": "http", "port": s.ProxyPort},
				map[string]any{"name": "https", "port": ports[0], "protocol": "https", "certificates": []any{"site"}},
			},
		}},
		map[string]any{"kind": "Route", "name": "site", "spec": map[string]any{
			"hosts":           []any{"site.test"},
			"direct_response": map[string]any{"status": 200, "body": "sealed"},
		}},
	}}, 200)
	path := filepath.Join(s.Dir, "secrets.json")
	rekey := func(change func(old string) string) {
		t.Helper()
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		secrets := map[string]string{}
		if err := json.Unmarshal(raw, &secrets); err != nil {
			t.Fatal(err)
		}
		secrets["SecretKey"] = change(secrets["SecretKey"])
		if raw, err = json.Marshal(secrets); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	serves := func(when string) {
		t.Helper()
		c.in(c.text("export", "routes"), 0, "apply", "-f", "-", "--wait") // everything is live
		if status, body, _, _, _ := fetch(t, browser(a, "site.test", nil), tls, "site.test"); status != 200 ||
			body != "sealed" {
			t.Errorf("%s: %d %q", when, status, body)
		}
	}
	const fresh = "the new key that this test seals with"
	rekey(func(old string) string { return fresh + "," + old })
	serves("with both keys")
	out, _ := c.in(c.text("export"), 0, "apply", "-f", "-", "--wait")
	c.says(out, "update Certificate/site", "1 changed")
	c.in(c.text("export"), 0, "diff", "-f", "-")
	rekey(func(string) string { return fresh })
	serves("with the new key alone")
	c.in(c.text("export"), 0, "validate", "-f", "-")
}
