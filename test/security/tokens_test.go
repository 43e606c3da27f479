package security

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestTokenHoles: what a token must not be, and what is known of one.
func TestTokenHoles(t *testing.T) {
	s := start(t)
	for name, c := range map[string]struct{ body, says string }{
		"the system's name":    {`{"name":"marchproxy","role":"editor"}`, "an actor of the system's own"},
		"the first token's":    {`{"name":"bootstrap","role":"editor"}`, "an actor of the system's own"},
		"the façade's":         {`{"name":"xds-config","role":"editor"}`, "an actor of the system's own"},
		"one of the system's":  {`{"name":"marchproxy-xds","role":"editor"}`, "an actor of the system's own"},
		"over already":         {`{"name":"x","role":"editor","expires_at":"2020-01-01T00:00:00Z"}`, "is over already"},
		"at no time":           {`{"name":"x","role":"editor","expires_at":"tomorrow"}`, "RFC 3339"},
		"an admin with bounds": {`{"name":"x","role":"admin","bounds":{"owners":["a"]}}`, "cannot hold for the role admin"},
		"a host with a star": {
			`{"name":"x","role":"editor","bounds":{"hosts":["*.example.com"]}}`,
			"must be the end of a host",
		},
		"an unknown kind":  {`{"name":"x","role":"editor","bounds":{"kinds":["Routes"]}}`, "must be one of"},
		"an unknown bound": {`{"name":"x","role":"editor","bounds":{"namespaces":["a"]}}`, "namespaces"},
		"an unknown role":  {`{"name":"x","role":"owner"}`, "viewer, editor, operator or admin"},
	} {
		status, raw, err := s.Call(t.Context(), "POST", s.API+"/v1/tokens", c.body)
		if err != nil || (status != 422 && status != 400) || !strings.Contains(string(raw), c.says) {
			t.Errorf("%s: %d %s %v", name, status, raw, err)
		}
	}
	first := s.must("POST", "/v1/tokens", `{"name":"again","role":"editor","bounds":{"hosts":["again.test"]}}`, 201)
	put := func(token any) {
		t.Helper()
		if status, raw := s.as(token.(string), "PUT", s.API+"/v1/routes/again",
			fmt.Sprintf(`{"labels":{"at":"%d"},"spec":{"hosts":["again.test"],"direct_response":{"status":200}}}`,
				time.Now().UnixNano())); status > 201 {
			t.Fatalf("%d %s", status, raw)
		}
	}
	used := func() string {
		for _, x := range s.must("GET", "/v1/tokens", nil, 200)["items"].([]any) {
			if m := x.(map[string]any); m["name"] == "again" {
				at, _ := m["last_used_at"].(string)
				return at
			}
		}
		return "no such token"
	}
	if at := used(); at != "" {
		t.Errorf("a token that nobody has used was used at %s", at)
	}
	put(first["token"])
	at := used()
	if x, err := time.Parse(time.RFC3339, at); err != nil || time.Since(x) > time.Minute {
		t.Errorf("last used at %q", at)
	}
	put(first["token"])
	if again := used(); again != at {
		t.Errorf("the use was noted at %s and again at %s", at, again)
	}
	s.must("DELETE", "/v1/tokens/again", nil, 200)
	second := s.must("POST", "/v1/tokens", `{"name":"again","role":"editor"}`, 201)
	put(second["token"])
	var ids []string
	for _, x := range s.must("GET", "/v1/audit?actor=again", nil, 200)["items"].([]any) {
		ids = append(ids, fmt.Sprint(x.(map[string]any)["actor_id"]))
	}
	if want := []any{second["id"], first["id"], first["id"]}; fmt.Sprint(ids) != fmt.Sprint(want) {
		t.Errorf("the audit has the ids %v, want %v", ids, want)
	}
	var told bytes.Buffer
	for _, x := range s.must("GET", "/v1/audit?kind=Token&object=again", nil, 200)["items"].([]any) {
		fmt.Fprintln(&told, x.(map[string]any)["message"])
	}
	for _, want := range []string{fmt.Sprint(first["id"]), fmt.Sprint(second["id"]), "hosts again.test"} {
		if !strings.Contains(told.String(), want) {
			t.Errorf("the audit does not say %q of the tokens:\n%s", want, told.String())
		}
	}
}

// TestRollbackRevives: what was taken away comes back by a rollback only where that is said.
func TestRollbackRevives(t *testing.T) {
	s := start(t)
	const (
		gone = `{"name":"lost","key":"a-cluster-key-that-was-lost"}`
		kept = `{"name":"kept","key":"a-cluster-key-that-is-kept"}`
	)
	s.must("PUT", "/v1/gateways/edge", `{"spec":{"listeners":[{"name":"http","port":10080}],"api_keys":[`+gone+`,`+
		kept+`]}}`, 201)
	s.must("PUT", "/v1/auth-policies/login",
		`{"spec":{"tokens":[{"name":"lost","value":"a-token-that-was-lost"},{"name":"ended","value":"a-token-that-has-ended"}],
		"jwt":{"keys":[{"kid":"old","algorithm":"HS256","secret":"an old secret of 32 bytes or more"}]}}}`, 201)
	s.must("PUT", "/v1/routes/r", `{"spec":{"hosts":["r.test"],"direct_response":{"status":200}}}`, 201)
	at := s.must("GET", "/v1/status", nil, 200)["revision"].(float64)
	back := fmt.Sprintf("/v1/revisions/%.0f/rollback", at)

	s.must("PATCH", "/v1/routes/r", `{"spec":{"direct_response":{"status":204}}}`, 200)
	s.must("POST", back, nil, 200) // nothing to confirm
	s.must("PUT", "/v1/gateways/edge", `{"spec":{"listeners":[{"name":"http","port":10080}],"api_keys":[`+kept+`]}}`, 200)
	s.must("PUT", "/v1/auth-policies/login",
		`{"spec":{"tokens":[{"name":"ended","value":"a-token-that-has-ended","not_after":"2020-01-01T00:00:00Z"}],
		"jwt":{"keys":[{"kid":"new","algorithm":"HS256","secret":"a new secret of 32 bytes or more."}]}}}`, 200)
	all := []string{`api_key \"lost\"`, `token \"lost\"`, `token \"ended\"`, `key \"old\"`}
	status, raw, err := s.Call(t.Context(), "POST", s.API+back, nil)
	if err != nil || status != 409 || strings.Contains(string(raw), "kept") {
		t.Errorf("%d %s %v", status, raw, err)
	}
	dry, dryRaw, err := s.Call(t.Context(), "POST", s.API+back+"?dry_run=true", nil)
	if err != nil || dry != 200 {
		t.Errorf("dry: %d %s %v", dry, dryRaw, err)
	}
	out, err := s.CLI(t.Context(), "rollback", fmt.Sprint(int(at))).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--revive-credentials") {
		t.Errorf("the command line: %v\n%s", err, out)
	}
	for _, x := range all {
		if !strings.Contains(string(raw), x) || !strings.Contains(string(dryRaw), x) ||
			!strings.Contains(string(out), strings.ReplaceAll(x, `\`, "")) {
			t.Errorf("not named: %s in\n%s\n%s\n%s", x, raw, dryRaw, out)
		}
	}
	if out, err := s.CLI(t.Context(), "rollback", fmt.Sprint(int(at)), "--revive-credentials").
		CombinedOutput(); err != nil {
		t.Errorf("confirmed: %v\n%s", err, out)
	}
	keys := s.must("GET", "/v1/gateways/edge", nil, 200)["spec"].(map[string]any)["api_keys"].([]any)
	if len(keys) != 2 {
		t.Errorf("after it: %v", keys)
	}
}
