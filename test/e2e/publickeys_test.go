package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestPublicKeys: a policy with public keys behaves as one with shared secrets, though Envoy's own filter
// serves it; keys given by PEM, and fetched.
func TestPublicKeys(t *testing.T) {
	s := start(t, "--no-demo")
	all := signers(t)
	var keys []any
	for _, x := range all {
		keys = append(keys, map[string]any{"kid": x.kid, "algorithm": x.method.Alg(), "public_key": x.pem(t)})
	}
	rules := func(more map[string]any) map[string]any {
		j := map[string]any{
			"issuers": []string{"joe", "old"}, "audiences": []string{"shop"},
			"required_claims": []any{
				map[string]any{"claim": []string{"realm_access", "roles"}, "values": []string{"admin", "owner"}},
				map[string]any{"claim": []string{"scope"}, "values": []string{"read"}, "words": true},
			},
			"forward_claims": []any{map[string]any{"claim": []string{"sub"}, "header": "x-user"}},
		}
		maps.Copy(j, more)
		return map[string]any{"spec": map[string]any{
			"jwt": j, "strip": true,
			"exempt_paths": []any{map[string]any{"path": "/public", "prefix": true}},
		}}
	}
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/auth-policies/partners", rules(map[string]any{"keys": keys}), 201)
	call(t, s, "PUT", s.API+"/v1/routes/private?wait=live", `{"spec":{"hosts":["a.test"],"auth_policy":"partners",`+
		`"backends":[{"service":"web"}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/open?wait=live", `{"spec":{"hosts":["a.test"],"path":{"prefix":"/open"},`+
		`"backends":[{"service":"web"}]}}`, 201)
	v := visit(t, s, "a.test")
	for _, x := range all {
		if got := v.want(200, "/x", x.token(t, nil), "X-User: root"); got != "Authorization=;X-User=ann;X-License-Key=;" {
			t.Errorf("%s: the backend gets %s", x.kid, got)
		}
		v.want(200, "/x", x.token(t, jwt.MapClaims{"iss": "old"}))
		v.want(401, "/x", x.token(t, jwt.MapClaims{"iss": "mallory"}))
		v.want(401, "/x", x.token(t, jwt.MapClaims{"exp": nil}))
		v.want(401, "/x", x.token(t, jwt.MapClaims{"exp": time.Now().Add(-2 * time.Minute).Unix()}))
		v.want(403, "/x", x.token(t, jwt.MapClaims{"realm_access": map[string]any{"roles": []string{"user"}}}))
		v.want(403, "/x", x.token(t, jwt.MapClaims{"realm_access": nil}))
		v.want(403, "/x", x.token(t, jwt.MapClaims{"scope": "readers write"}))
		v.want(200, "/x", x.token(t, jwt.MapClaims{"scope": "write read", "realm_access": map[string]any{"roles": "owner"}}))
	}
	v.want(401, "/x", "")
	v.want(401, "/x?access_token="+all[0].token(t, nil), "")
	// the public key as a shared secret
	v.want(401, "/x", signed(t, "r", all[0].pem(t), jwt.MapClaims{"iss": "joe", "aud": "shop"}))
	v.want(200, "/public/x?y", "")
	v.want(401, "/publicx", "")
	v.want(307, "/public/..%2fx", "") // Envoy has the client write it plainly
	if got := v.want(200, "/open", "", "X-User: root"); !strings.Contains(got, "X-User=;") {
		t.Errorf("a client forges an identity where there is no policy: %s", got)
	}
	for i := range all { // one key is taken away
		call(t, s, "PUT", s.API+"/v1/auth-policies/partners?wait=live", rules(map[string]any{"keys": []any{keys[i]}}), 200)
		for j, x := range all {
			want := 401
			if i == j {
				want = 200
			}
			v.want(want, "/x", x.token(t, nil))
		}
	}

	// The same, fetched from an identity provider.
	idp := keyServer(t, all...)
	call(t, s, "PUT", s.API+"/v1/services/idp", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+idp+`}]}}`, 201)
	remote := rules(map[string]any{"remote_jwks": map[string]any{"service": "idp", "path": "/keys", "host": "id.test"}})
	call(t, s, "PUT", s.API+"/v1/auth-policies/partners?wait=live", remote, 200)
	for _, x := range all {
		v.want(200, "/x", x.token(t, nil))
		v.want(403, "/x", x.token(t, jwt.MapClaims{"scope": "write"}))
	}
	// As the gateway's policy it holds for routes that say nothing, and for no others.
	call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live", `{"spec":{"auth_policy":"partners"}}`, 200)
	call(t, s, "PUT", s.API+"/v1/routes/free?wait=live", `{"spec":{"hosts":["a.test"],"path":{"prefix":"/free"},`+
		`"auth_policy":"none","backends":[{"service":"web"}]}}`, 201)
	v = visit(t, s, "a.test")
	v.want(401, "/open", "")
	v.want(200, "/open", all[1].token(t, nil))
	v.want(403, "/open", all[1].token(t, jwt.MapClaims{"scope": "write"}))
	v.want(200, "/free", "")
	v.want(200, "/public/x", "")
}

// TestPolicyChangesEngines: a policy goes from shared secrets, which our filter knows, to public keys, which Envoy's own
// does, and back. Each time what was a good token is none, and routes that come afterwards are live.
func TestPolicyChangesEngines(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "1")
	x := signers(t)[0]
	public := map[string]any{"spec": map[string]any{"jwt": map[string]any{"keys": []any{
		map[string]any{"kid": x.kid, "algorithm": x.method.Alg(), "public_key": x.pem(t)},
	}}}}
	shared := `{"spec":{"jwt":{"keys":[` + hmacKey("k1", firstSecret) + `]}}}`
	call(t, s, "PUT", s.API+"/v1/auth-policies/p", shared, 201)
	call(t, s, "PUT", s.API+"/v1/routes/first?wait=live", private("first.test"), 201)
	old, now := signed(t, "k1", firstSecret, nil), x.token(t, nil)
	for i, body := range []any{public, shared, public} {
		call(t, s, "PUT", s.API+"/v1/auth-policies/p?wait=live", body, 200)
		good, bad := now, old
		if i%2 == 1 {
			good, bad = old, now
		}
		host := fmt.Sprintf("later%d.test", i)
		call(t, s, "PUT", fmt.Sprintf("%s/v1/routes/later%d?wait=live", s.API, i), private(host), 201)
		for _, host := range []string{"first.test", host} {
			v := visit(t, s, host)
			v.want(200, "/", good)
			v.want(401, "/", bad)
			v.want(401, "/", "")
		}
	}
}

// private is a route of a host under the policy p.
func private(host string) string {
	return `{"spec":{"hosts":["` + host + `"],"auth_policy":"p","direct_response":{"status":200}}}`
}
