package security

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/probe"
)

// TestHashesAreHidden: no read shows the hash of an opaque token or of a gateway's key, by which one that somebody has
// chosen could be guessed; and what is read can be written again: edited, applied, rolled back.
func TestHashesAreHidden(t *testing.T) {
	s := start(t)
	sum := func(secret string) string {
		d := sha256.Sum256([]byte(secret))
		return hex.EncodeToString(d[:])
	}
	const one, two, key = "a-first-token-of-machines", "a-second-token-of-machines", "a-key-of-the-gateway-edge"
	secrets := []string{one, two, key, sum(one), sum(two), sum(key), strings.ToUpper(sum(one))}
	hides := func(what, text string) {
		t.Helper()
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows a secret or its hash:\n%s", what, text)
			}
		}
	}
	call := func(method, path string, body any, want int) string {
		t.Helper()
		status, raw, err := s.Call(t.Context(), method, s.API+path, body)
		if err != nil || status != want {
			t.Fatalf("%s %s: %d %s %v, want %d", method, path, status, raw, err, want)
		}
		hides(method+" "+path, string(raw))
		return string(raw)
	}
	cli := func(fails string, args ...string) string {
		t.Helper()
		out, err := s.CLI(t.Context(), args...).CombinedOutput()
		if (err != nil) != (fails != "") || !strings.Contains(string(out), fails) {
			t.Fatalf("marchproxy %v: %v\n%s", args, err, out)
		}
		hides(fmt.Sprint("marchproxy ", args), string(out))
		return string(out)
	}
	const policy = "/v1/auth-policies/machines"
	tokens := `{"name":"one","value":"` + one + `"},{"name":"two","sha256":"` + sum(two) + `"}`
	call("PUT", policy+"?dry_run=true", `{"spec":{"tokens":[`+tokens+`]}}`, 200)
	call("PUT", policy, `{"spec":{"tokens":[`+tokens+`]}}`, 201)
	call("PUT", "/v1/gateways/edge",
		`{"spec":{"listeners":[{"name":"http","port":10078}],"api_keys":[{"name":"k","key":"`+key+`"}]}}`, 201)
	call("PUT", "/v1/routes/machines?wait=live",
		`{"spec":{"hosts":["machines.test"],"auth_policy":"machines","direct_response":{"status":200}}}`, 201)
	opens := func(when string, tokens ...string) {
		t.Helper()
		c := probe.New(s.Proxy)
		defer c.Close()
		for _, token := range []string{one, two} {
			want := 401
			if strings.Contains(strings.Join(tokens, " "), token) {
				want = 200
			}
			if a, _, err := c.Get("machines.test", "/", "Authorization: Bearer "+token); err != nil || a.Status != want {
				t.Errorf("%s: %s opens with %d %v, want %d", when, token, a.Status, err, want)
			}
		}
	}
	opens("at first", one, two)

	// Read, and written again as it was read: that is no change.
	read := call("GET", policy, nil, 200)
	var object struct {
		Revision float64
		Spec     map[string]any
	}
	if err := json.Unmarshal([]byte(read), &object); err != nil {
		t.Fatal(err)
	}
	at := object.Revision
	again := call("PUT", policy, read, 200)
	if err := json.Unmarshal([]byte(again), &object); err != nil || object.Revision != at {
		t.Errorf("written again it is revision %v, it was %v (%v)", object.Revision, at, err)
	}
	// Edited.
	object.Spec["strip"] = true
	call("PUT", policy+"?wait=live", map[string]any{"spec": object.Spec}, 200)
	opens("after an edit", one, two)
	call("PATCH", policy+"?wait=live", `{"spec":{"tokens":[{"name":"one"}]}}`, 200)
	opens("without the second", one)
	for _, body := range []string{
		`{"spec":{"tokens":[{"name":"one"},{"name":"two"}]}}`, `{"spec":{"tokens":[{"name":"renamed"}]}}`,
	} {
		status, raw, err := s.Call(t.Context(), "PUT", s.API+policy, body)
		if err != nil || status != 422 || !strings.Contains(string(raw), "neither value nor sha256") ||
			!strings.Contains(string(raw), "$.spec.tokens[") {
			t.Errorf("a token that is not stored: %d %s %v", status, raw, err)
		}
	}
	opens("after refusals", one)

	// What else tells of it.
	for _, path := range []string{
		"/v1/auth-policies", "/v1/gateways", "/v1/gateways/edge", "/v1/revisions", fmt.Sprintf("/v1/revisions/%.0f", at),
		fmt.Sprintf("/v1/revisions/%.0f/diff", at), fmt.Sprintf("/v1/revisions/%.0f/diff?against=1", at+3), "/v1/audit",
		"/v1/status",
	} {
		call("GET", path, nil, 200)
	}
	cli("", "get", "auth-policies", "machines", "-o", "yaml")
	cli("", "revisions", fmt.Sprintf("%.0f", at))

	// Rolled back, after a question that names the token and not its hash; it opens as it did then.
	back := fmt.Sprintf("/v1/revisions/%.0f/rollback", at+2)
	call("POST", back+"?dry_run=true", nil, 200)
	call("POST", back, nil, 409)
	call("POST", back+"?revive_credentials=true&wait=live", nil, 200)
	opens("after a rollback", one, two)

	// Exported: here it is what is stored, elsewhere it needs what the export lists.
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	exported := cli("", "export", "auth-policies")
	for _, name := range []string{"tokens.one.value", "tokens.two.value"} {
		if !strings.Contains(exported, name) {
			t.Errorf("the export does not list %s:\n%s", name, exported)
		}
	}
	all := file("all.yaml", exported)
	cli("", "diff", "-f", all)
	cli("", "apply", "-f", all)
	opens("after apply", one, two)
	spec := `{"kind":"AuthPolicy","name":"machines","spec":{"tokens":[{"name":"one","sha256":"` + sum(one) +
		`"},{"name":"two"}]}}`
	cli("", "diff", "-f", file("same.json", spec))
	cli("the difference is in a secret", "diff", "-f",
		file("other.json", strings.ReplaceAll(spec, sum(one), sum("another-token-that-is-new"))))
	call("DELETE", "/v1/routes/machines", nil, 200)
	call("DELETE", policy, nil, 200)
	cli("tokens.one.value", "apply", "-f", all)
	cli("", "apply", "-f", all, "--secrets",
		file("secrets.yaml", "AuthPolicy/machines: {tokens.one.value: "+one+", tokens.two.value: "+two+"}\n"))
	call("PUT", "/v1/routes/machines?wait=live",
		`{"spec":{"hosts":["machines.test"],"auth_policy":"machines","direct_response":{"status":200}}}`, 201)
	opens("at another place", one, two)
}
