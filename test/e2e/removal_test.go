package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// TestRemovedTogether: one write takes away a Service and the policy with public keys that fetched its keys from there,
// again and again. Nothing that is left is hurt by it: no refusal by Envoy, no request, no connection, and a write
// that would leave the policy without its Service is not done at all.
func TestRemovedTogether(t *testing.T) {
	s := start(t, "--no-demo")
	rsa := signers(t)[0]
	idp := keyServer(t, rsa)
	type object = map[string]any
	service := func(name, port string) object {
		return object{
			"kind": "Service", "name": name,
			"spec": object{"endpoints": []any{object{"host": "127.0.0.1", "port": json.Number(port)}}},
		}
	}
	route := func(name, policy string) object {
		return object{"kind": "Route", "name": name, "spec": object{
			"hosts": []string{name + ".test"}, "auth_policy": policy,
			"backends": []any{object{"service": "web"}},
		}}
	}
	policy := func(name string, j object) object {
		return object{"kind": "AuthPolicy", "name": name, "spec": object{"jwt": j}}
	}
	apply := func(status int, resources ...object) object {
		t.Helper()
		return call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"owner": "team", "prune": true, "resources": resources},
			status)
	}
	remote := object{"remote_jwks": object{"service": "idp", "path": "/keys", "host": "id.test"}}
	other := []object{
		service("web", echo(t)), route("open", "none"),
		policy("other", object{"keys": []any{object{"kid": "r", "algorithm": "RS256", "public_key": rsa.pem(t)}}}),
		route("other", "other"),
	}
	all := append(other[:len(other):len(other)], service("idp", idp), policy("fetched", remote),
		route("fetched", "fetched"))
	token := rsa.token(t, jwt.MapClaims{})
	apply(200, all...)
	open, others, fetched := visit(t, s, "open.test"), visit(t, s, "other.test"), visit(t, s, "fetched.test")
	left := func() {
		t.Helper()
		open.want(200, "/", "")
		others.want(200, "/", token)
		others.want(401, "/", "")
	}
	for range 5 {
		left()
		eventually(t, func() string { // the keys are fetched in the background
			if status, body, _ := fetched.get("/", token); status != 200 {
				return fmt.Sprint(status, body)
			}
			return ""
		})
		fetched.want(401, "/", "")

		// The policy stays: then its Service must.
		refused := apply(409, append(other[:len(other):len(other)], policy("fetched", remote),
			route("fetched", "fetched"))...)
		if text := fmt.Sprint(refused["errors"]); !strings.Contains(text, "idp") {
			t.Errorf("a policy without its service is refused with %s", text)
		}
		fetched.want(200, "/", token)

		// Both go, by the same write.
		apply(200, other...)
		left()
		fetched.want(404, "/", token)

		// Or the policy turns to keys of its own, and only the Service goes.
		apply(200, all...)
		apply(200, append(other[:len(other):len(other)],
			policy("fetched", object{"keys": []any{object{"kid": "r", "algorithm": "RS256", "public_key": rsa.pem(t)}}}),
			route("fetched", "fetched"))...)
		left()
		fetched.want(200, "/", token)
		fetched.want(401, "/", "")
		apply(200, all...)
	}
	_, raw, err := s.Call(t.Context(), "GET",
		s.Admin+"/stats?filter=(update_rejected|listener_modified|in_place_updated|config_fail)", nil)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if !strings.HasSuffix(strings.TrimSpace(line), ": 0") {
			t.Errorf("Envoy counts %s", line)
		}
	}
	// The seed's own document gives and takes away in one write, too; a service that a policy needs it may not take.
	const doc = `{"services":[{"name":"keys","hosts":["127.0.0.1"],"port":%s,"protocol":"http"}],` +
		`"routes":[{"name":"keys","prefix":"/","cluster_name":"keys","hosts":["keys.test"]}]}`
	call(t, s, "POST", s.XDS+"/v1/config", fmt.Sprintf(doc, idp), 200)
	call(t, s, "PUT", s.API+"/v1/auth-policies/late?wait=live", `{"spec":{"jwt":{"remote_jwks":{"service":"keys",`+
		`"path":"/keys"}}}}`, 201)
	if text := fmt.Sprint(call(t, s, "POST", s.XDS+"/v1/config?allow_empty=true", `{"services":[],"routes":[]}`,
		409)); !strings.Contains(text, "late") {
		t.Errorf("a document that takes a policy's service away is refused with %s", text)
	}
	call(t, s, "DELETE", s.API+"/v1/auth-policies/late?wait=live", nil, 200)
	call(t, s, "POST", s.XDS+"/v1/config?allow_empty=true", `{"services":[],"routes":[]}`, 200)
	left()
}
