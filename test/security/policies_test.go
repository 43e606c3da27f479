package security

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/badpolicy"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// putPolicy writes a spec, and gives what the answer says of its fields.
func putPolicy(t *testing.T, s *harness.System, path, spec string) (status int, fields map[string]string, raw string) {
	t.Helper()
	status, body, err := s.Call(t.Context(), http.MethodPut, s.API+"/v1/"+path, `{"spec":`+spec+`}`)
	if err != nil {
		t.Fatal(err)
	}
	var problem struct {
		Errors []struct{ Path, Message string }
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	fields = map[string]string{}
	for _, v := range problem.Errors {
		fields[v.Path] = v.Message
	}
	return status, fields, string(body)
}

// TestBadPoliciesAreRefused: what an engine would refuse is refused at the write, with the field, and changes nothing.
func TestBadPoliciesAreRefused(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo", "--concurrency", "2")
	if status, _, raw := putPolicy(t, s, "services/idp", `{"endpoints":[{"host":"127.0.0.1","port":9}]}`); status != 201 {
		t.Fatal(status, raw)
	}
	for _, k := range badpolicy.Kinds() {
		if k.Field == "" {
			continue // only an Envoy can know
		}
		status, fields, raw := putPolicy(t, s, "auth-policies/bad", k.Spec)
		if status != http.StatusUnprocessableEntity || fields[k.Field] == "" {
			t.Errorf("%s: %d for %v, not for %s: %s", k.Name, status, fields, k.Field, raw)
		}
		status, body, err := s.Call(t.Context(), http.MethodGet, s.API+"/v1/auth-policies/bad", nil)
		if err != nil || status != http.StatusNotFound {
			t.Fatalf("%s: it is there: %d %s %v", k.Name, status, body, err)
		}
	}
}

// TestTooManyTokens: 70 policies of 1,000 tokens are more than a gateway's filter reads. The first that has no room is
// refused, and a revocation in one of the others is live at once, though the gateway is full.
func TestTooManyTokens(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo", "--concurrency", "2")
	full := 0
	for i := range 70 {
		policy := fmt.Sprintf("auth-policies/p%d", i)
		if status, _, raw := putPolicy(t, s, policy, badpolicy.Tokens(1000*i, 1000)); status != 201 {
			t.Fatal(status, raw)
		}
		route := fmt.Sprintf(`{"hosts":["h%d.test"],"auth_policy":"p%d","direct_response":{"status":200}}`, i, i)
		status, fields, raw := putPolicy(t, s, fmt.Sprintf("routes/r%d", i), route)
		if status == http.StatusCreated {
			full++
			continue
		}
		if !strings.Contains(fields["$.spec.auth_policy"], "gateway default") {
			t.Fatal(status, raw)
		}
		break
	}
	if full < 40 || full > 60 {
		t.Errorf("%d policies of 1,000 tokens have room", full)
	}
	status, _, raw := putPolicy(t, s, "auth-policies/p3?wait=live", badpolicy.Tokens(3000, 999))
	if status != http.StatusOK || !strings.Contains(raw, `"state":"live"`) {
		t.Errorf("a revocation: %d %.500s", status, raw)
	}
}

// TestEndsIn1970: not_after is then, where the filters' time begins too, and never is where it is absent.
func TestEndsIn1970(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo", "--concurrency", "2")
	const token = "c2VjcmV0LXRva2VuLW9mLWEtbWFjaGluZQ=="
	write := func(path, spec string) {
		t.Helper()
		if status, _, raw := putPolicy(t, s, path+"?wait=live", spec); status > http.StatusCreated {
			t.Fatal(status, raw)
		}
	}
	c := probe.New(s.Proxy)
	defer c.Close()
	for end, want := range map[string]int{`,"not_after":"1970-01-01T00:00:00Z"`: 401, "": 200} {
		write("auth-policies/p", `{"tokens":[{"name":"a","value":"`+token+`"`+end+`}]}`)
		write("routes/r", `{"hosts":["a.test"],"auth_policy":"p","direct_response":{"status":200,"body":"ok"}}`)
		if a, _, err := c.Get("a.test", "/", "Authorization: Bearer "+token); err != nil || a.Status != want {
			t.Errorf("not_after %q: %d %v, want %d", end, a.Status, err, want)
		}
	}
}

// TestRevocationBesideBadPolicies: a policy that is bad, and is there all the same, holds no revocation back.
// `go run ./test/cmd/check-auth -bad 500` is the long form.
func TestRevocationBesideBadPolicies(t *testing.T) {
	report, err := badpolicy.Run(t.Context(), harness.ForTest(t, nil, "--no-demo", "--concurrency", "2"),
		2*len(badpolicy.Kinds()))
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
}
