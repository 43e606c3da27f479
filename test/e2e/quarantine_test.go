package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestRefusedPolicyIsClosed: Envoy refuses the claims that a new version of a policy asks for.
// What the policy protects is closed, to the key of the version before too, since it may have been revoked, on Envoys
// that join and over restarts; other objects are unharmed, and the policy says why.
func TestRefusedPolicyIsClosed(t *testing.T) {
	s := start(t, "--no-demo")
	strict(t, s)
	keys := signers(t)
	old, young := keys[0], keys[1]
	policy := func(name string, key signer, more object) object {
		j := object{"keys": []any{object{"kid": key.kid, "algorithm": key.method.Alg(), "public_key": key.pem(t)}}}
		for k, v := range more {
			j[k] = v
		}
		return object{"kind": "AuthPolicy", "name": name, "spec": object{"jwt": j}}
	}
	private := func(body string) object {
		return direct("private", body, object{"auth_policy": "staff"})
	}
	apply := func(status int, resources ...any) {
		t.Helper()
		call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": resources}, status)
	}
	// Words are looked for by a regular expression, which is too large for this Envoy.
	words := object{"required_claims": []any{object{
		"claim":  []string{"scope"},
		"values": []string{strings.Repeat("x", 200)}, "words": true,
	}}}
	apply(200, policy("staff", old, nil), private("before"), policy("other", young, nil),
		direct("other", "other", object{"auth_policy": "other"}), direct("open", "open", nil))
	closed := func() {
		t.Helper()
		settled(t, s, "private.example.com", old.token(t, jwt.MapClaims{}), 401, "")
		// its key is good, and nobody has what is asked for
		settled(t, s, "private.example.com", young.token(t, jwt.MapClaims{}), 403, "")
		settled(t, s, "other.example.com", young.token(t, jwt.MapClaims{}), 200, "other")
		settled(t, s, "other.example.com", old.token(t, jwt.MapClaims{}), 401, "")
		settled(t, s, "open.example.com", "", 200, "open")
		if o := state(t, s, "/v1/auth-policies/staff"); !strings.Contains(o, "rejected") || !strings.Contains(o, "regex") {
			t.Errorf("the policy: %s", o)
		}
		for _, path := range []string{"/v1/auth-policies/other", "/v1/routes/other", "/v1/routes/open"} {
			if o := state(t, s, path); strings.Contains(o, "rejected") {
				t.Errorf("%s: %s", path, o)
			}
		}
	}
	apply(202, policy("staff", young, words), private("after"))
	closed()
	call(t, s, "PUT", s.API+"/v1/routes/next?wait=live", direct("next", "next", nil), 201)
	again(t, s, "envoy")
	closed()
	again(t, s, "xds", "envoy")
	closed()

	apply(200, policy("staff", young, nil))
	settled(t, s, "private.example.com", young.token(t, jwt.MapClaims{}), 200, "after")
	settled(t, s, "private.example.com", old.token(t, jwt.MapClaims{}), 401, "")
	if rejected := call(t, s, "GET", s.API+"/v1/status", nil, 200)["rejected"].([]any); len(rejected) != 0 {
		t.Errorf("still rejected: %v", rejected)
	}
}

// TestRefusedRouteKeepsItsPolicy: Envoy refuses a route's new version, with which its policy is deleted.
// The version before goes on, and its policy with it, on Envoys that join and over restarts, until the
// route is corrected.
func TestRefusedRouteKeepsItsPolicy(t *testing.T) {
	s := start(t, "--no-demo")
	strict(t, s)
	policy := func(name, kid, secret string) object {
		return object{
			"kind": "AuthPolicy", "name": name,
			"spec": object{"jwt": object{"keys": []any{object{"kid": kid, "algorithm": "HS256", "secret": secret}}}},
		}
	}
	apply := func(status int, resources ...any) {
		t.Helper()
		call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"owner": "o", "prune": true, "resources": resources}, status)
	}
	first, second := signed(t, "k1", firstSecret, nil), signed(t, "k2", secondSecret, nil)
	one, two := policy("one", "k1", firstSecret), policy("two", "k2", secondSecret)
	apply(200, one, direct("r", "before", object{"auth_policy": "one"}))
	apply(202, two, direct("r", "after", object{"auth_policy": "two", "path": object{"regex": tooLarge}}))
	before := func() {
		t.Helper()
		settled(t, s, "r.example.com", first, 200, "before")
		settled(t, s, "r.example.com", second, 401, "")
	}
	// Longer than a policy outlives its last route.
	for t0 := time.Now(); time.Since(t0) < 7*time.Second; {
		if wrong := answered(s, "r.example.com", first, 200, "before"); wrong != "" {
			t.Fatalf("after %s: %s", time.Since(t0), wrong)
		}
	}
	again(t, s, "envoy")
	before()
	again(t, s, "xds", "envoy")
	before()

	apply(200, two, direct("r", "corrected", object{"auth_policy": "two"}))
	settled(t, s, "r.example.com", second, 200, "corrected")
	settled(t, s, "r.example.com", first, 401, "")
	eventually(t, func() string {
		_, raw, err := s.Call(t.Context(), "GET", s.Admin+"/config_dump", nil)
		if err != nil || strings.Contains(string(raw), `\"one\"`) {
			return fmt.Sprintf("the policy that nothing names stays (%v)", err)
		}
		return ""
	})
}
