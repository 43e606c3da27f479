package security

import (
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// TestForgedHeaderChoosesNoRoute: a client that sends the header which a policy sets would choose the route whose
// policy is asked, and be served by another one. Such routes are refused in either order, and the same by two objects in
// one write; what is protected stays so, whatever the client sends.
func TestForgedHeaderChoosesNoRoute(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo", "--concurrency", "1")
	const (
		policy = `{"jwt":{"keys":[{"kid":"k","algorithm":"HS256","secret":"thirty-two bytes of a secret, more"}],` +
			`"forward_claims":[{"claim":["sub"],"header":"x-user"}]}}`
		secret = `{"hosts":["h.test"],"auth_policy":"p","direct_response":{"status":200,"body":"secret"}}`
		public = `{"hosts":["h.test"],"headers":[{"name":"x-user","value":{"exact":"a"}}],"direct_response":{"status":200}}`
	)
	write := func(path, spec, field string) {
		t.Helper()
		status, fields, raw := putPolicy(t, s, path+"?wait=live", spec)
		if field == "" && status > 201 || field != "" && (status != 422 || fields[field] == "") {
			t.Fatalf("%s: %d, want a refusal for %q: %s", path, status, field, raw)
		}
	}
	write("auth-policies/p", policy, "")
	write("routes/secret", secret, "")
	write("routes/pub", public, "$.spec.headers[0].name")
	both := `{"resources":[{"kind":"Route","name":"secret","spec":` + secret + `},{"kind":"Route","name":"pub","spec":` +
		public + `}]}`
	status, raw, err := s.Call(t.Context(), "POST", s.API+"/v1/apply", both)
	if err != nil || status != 422 {
		t.Errorf("both in one write: %d %s %v", status, raw, err)
	}
	c := probe.New(s.Proxy)
	defer c.Close()
	for _, sent := range [][]string{nil, {"x-user: a"}, {"X_User: a"}} {
		if a, _, err := c.Get("h.test", "/", sent...); err != nil || a.Status != 401 {
			t.Errorf("with %q: %d %q %v", sent, a.Status, a.Body, err)
		}
	}
	write("routes/secret", `{"hosts":["h.test"],"direct_response":{"status":200}}`, "")
	write("routes/pub", public, "")
	write("routes/secret", secret, "$.spec.auth_policy")
}
