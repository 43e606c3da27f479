package wasm

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/marchproxy/marchproxy/test/wasm/host"
)

func authUsers() object {
	return object{"default_policy": "users", "per_route": true, "policies": []object{users}}
}

// raw signs any header and payload with HS256.
func raw(header, payload string) string {
	text := b64([]byte(header)) + "." + b64([]byte(payload))
	m := hmac.New(sha256.New, secret256)
	m.Write([]byte(text))
	return text + "." + b64(m.Sum(nil))
}

func bearer(token string) host.Headers { return request("/x", "authorization", "Bearer "+token) }

func expect(t *testing.T, vm *host.VM, h host.Headers, reason string) host.Outcome {
	t.Helper()
	o := send(t, vm, h)
	if got := strings.TrimPrefix(refusedFor(o), "marchproxy_auth_"); got != reason {
		a, _ := h.Get("authorization")
		t.Errorf("%q for %.300s, want %q", got, a, reason)
	}
	return o
}

// byGoJose is a token that go-jose signs.
func byGoJose(t testing.TB, kid string, c object) string {
	t.Helper()
	signer, err := jose.NewSigner(
		jose.SigningKey{
			Algorithm: jose.SignatureAlgorithm(methods[kid].Alg()),
			Key:       jose.JSONWebKey{Key: secrets[kid], KeyID: kid},
		},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// TestOtherLibraries: what golang-jwt and go-jose sign with each algorithm is good here.
func TestOtherLibraries(t *testing.T) {
	vm := start(t, "auth", authUsers())
	for kid := range methods {
		expect(t, vm, bearer(token(t, kid, claims(now, nil))), "")
		compact := byGoJose(t, kid, claims(now, object{"sub": "jöse"}))
		o := expect(t, vm, bearer(compact), "")
		if got, _ := o.Headers.Get("x-auth-sub"); got != "jöse" {
			t.Errorf("%s: the subject is %q", kid, got)
		}
		// One bit off, in each place of the signature.
		sig := strings.LastIndexByte(compact, '.') + 1
		for i := sig; i < len(compact); i++ {
			c := byte('A')
			if compact[i] == c {
				c = 'B'
			}
			if o := send(t, vm, bearer(compact[:i]+string(c)+compact[i+1:])); o.Passed {
				t.Fatalf("%s: passed with a wrong signature", kid)
			}
		}
	}
}

// TestForwardedLists: what is forwarded of a list, and what is not; the other cases of claims are in jwtcases.
func TestForwardedLists(t *testing.T) {
	vm := start(t, "auth", authUsers())
	for _, c := range []struct {
		change object
		reason string
	}{
		{object{"roles": []string{"reader", "owner"}}, ""},
		{object{"roles": []any{[]string{"owner"}}}, "claim_required"},
		{object{"roles": []string{"admin", "a,b"}}, "claim_forward"},
		{object{"sub": nil}, ""},
		{object{"sub": strings.Repeat("x", 4097)}, "claim_forward"},
	} {
		expect(t, vm, bearer(token(t, "k1", claims(now, c.change))), c.reason)
	}
}

func TestCredentials(t *testing.T) {
	vm := start(t, "auth", authUsers())
	for value, reason := range map[string]string{
		"Bearer " + opaqueToken:               "claim_required", // it has no roles
		"Bearer " + opaqueToken[:20]:          "unknown_token",
		"Bearer \xff\xfe":                     "malformed",
		"Bearer " + strings.Repeat("a", 8193): "too_long",
	} {
		expect(t, vm, request("/x", "authorization", value), reason)
	}
	good := token(t, "k1", claims(now, nil)) // Envoy joins them before; this is for another host
	expect(t, vm, request("/x", "authorization", "Bearer "+good, "authorization", "Bearer "+good), "ambiguous")
	expect(t, vm, request("/x", "Authorization", "Bearer "+good, "authorization", ""), "ambiguous")
	for path, reason := range map[string]string{
		"/healthz": "", "/healthz?x=/../y": "", "/healthz/": "missing", "/healthzz": "missing", "/healthz/a": "missing",
		"/public": "", "/public/a/b": "", "/publicity": "missing", "/public/../x": "missing", "/public/%2e%2e/x": "missing",
		"/public/..%2fx": "missing", "/public//x": "missing", "/public\\..\\x": "missing", "/public/./x": "missing",
		"/public;/../x": "missing",
		"//public":      "missing", "/PUBLIC": "missing", "/%70ublic": "missing", "": "missing", "*": "missing",
		"/public/\xff": "missing",
	} {
		expect(t, vm, request(path), reason)
	}
}

func TestOpaqueTokens(t *testing.T) {
	vm := start(t, "auth", object{"default_policy": "p", "policies": []object{{"name": "p", "tokens": []object{
		{"sha256": digest("b25l"), "subject": "one"},
		{"sha256": strings.ToUpper(digest("dHdv")), "not_after": now.Unix() + 10},
		{"sha256": digest("dGhlbg=="), "not_after": 0}, // in 1970
	}, "jwt": object{
		"keys":           []jwk{{"k1", "HS256", b64(secret256)}},
		"forward_claims": []object{{"claim": "sub", "header": "x-auth-sub"}},
	}}}})
	o := expect(t, vm, bearer("b25l"), "")
	if got, _ := o.Headers.Get("x-auth-sub"); got != "one" {
		t.Errorf("the subject is %q", got)
	}
	if got, kept := o.Headers.Get("authorization"); !kept || got != "Bearer b25l" {
		t.Errorf("the token is %q, and was not to be stripped", got)
	}
	expect(t, vm, bearer("dHdv"), "")
	expect(t, vm, bearer("dHdw"), "unknown_token")
	expect(t, vm, bearer("dGhlbg=="), "unknown_token")
	vm.Now += int64(10 * time.Second)
	expect(t, vm, bearer("dHdv"), "unknown_token")
	expect(t, vm, bearer("b25l"), "")
}

// TestCache: a token that was good is found again, never after its end, and not with a new configuration.
func TestCache(t *testing.T) {
	vm := start(t, "auth", authUsers())
	tok := token(t, "k1", claims(now, object{"nbf": now.Unix()}))
	cached := func() int64 { return vm.Metrics["marchproxy_auth_decisions_total;decision=allow;;reason=jwt_cached;"] }
	expect(t, vm, bearer(tok), "")
	o := expect(t, vm, bearer(tok), "")
	if cached() != 1 {
		t.Errorf("found %d times in the cache, want 1", cached())
	}
	if got, _ := o.Headers.Get("x-auth-sub"); got != "ann" {
		t.Errorf("from the cache the subject is %q", got)
	}
	expect(t, vm, bearer(tok[:len(tok)-1]+"A"), "signature")
	vm.Now = now.Add(-61 * time.Second).UnixNano()
	expect(t, vm, bearer(tok), "not_yet")
	vm.Now = now.Add(359 * time.Second).UnixNano()
	expect(t, vm, bearer(tok), "")
	vm.Now = now.Add(360 * time.Second).UnixNano()
	expect(t, vm, bearer(tok), "expired")
	if cached() != 2 {
		t.Errorf("found %d times in the cache, want 2", cached())
	}

	// The key goes: the token must not outlive it, whether in use or not.
	vm.Now = now.UnixNano()
	expect(t, vm, bearer(tok), "")
	old := vm.Root()
	configure(t, vm, object{
		"default_policy": "p",
		"policies":       []object{{"name": "p", "jwt": object{"keys": []jwk{{"k2", "HS256", b64(secret384)}}}}},
	})
	expect(t, vm, bearer(tok), "unknown_key")
	// A request that began under the old configuration is judged by it.
	vm.UseRoot(old)
	expect(t, vm, bearer(tok), "")
}

func TestCacheIsBounded(t *testing.T) {
	c := authUsers()
	c["cache_entries"] = 64
	vm := start(t, "auth", c)
	for i := range 5000 {
		expect(t, vm, bearer(token(t, "k1", claims(now, object{"n": i}))), "")
		if i == 200 {
			memory := vm.Memory()
			defer func() {
				if vm.Memory() != memory {
					t.Errorf("memory grew from %d to %d bytes", memory, vm.Memory())
				}
			}()
		}
	}
}

// TestRotation: two keys live at once, each found by its name.
func TestRotation(t *testing.T) {
	other := slices.Repeat([]byte{7}, 32)
	vm := start(t, "auth", object{"default_policy": "p", "policies": []object{{"name": "p", "jwt": object{
		"keys": []jwk{{"k1", "HS256", b64(secret256)}, {"new", "HS256", b64(other)}},
	}}}})
	sign := func(kid string, secret []byte) string {
		tok := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims(now, nil)))
		if kid != "" {
			tok.Header["kid"] = kid
		}
		s, err := tok.SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	expect(t, vm, bearer(sign("k1", secret256)), "")
	expect(t, vm, bearer(sign("new", other)), "")
	expect(t, vm, bearer(sign("", other)), "")
	expect(t, vm, bearer(sign("k1", other)), "signature")
	expect(t, vm, bearer(sign("new", secret256)), "signature")
}

// TestTypes: the part of a type that may be left out makes no difference; another type does.
func TestTypes(t *testing.T) {
	vm := start(t, "auth", object{"default_policy": "p", "policies": []object{{"name": "p", "jwt": object{
		"keys": []jwk{{"k1", "HS256", b64(secret256)}}, "types": []string{"at+jwt"},
	}}}})
	payload := fmt.Sprintf(`{"exp":%d}`, now.Unix()+9)
	for header, reason := range map[string]string{
		`{"alg":"HS256","typ":"at+jwt"}`:               "",
		`{"alg":"HS256","typ":"AT+JWT"}`:               "",
		`{"alg":"HS256","typ":"application/at+jwt"}`:   "",
		`{"alg":"HS256","typ":"JWT"}`:                  "type",
		`{"alg":"HS256","typ":"application/a/at+jwt"}`: "type",
		`{"alg":"HS256","typ":["at+jwt"]}`:             "type",
		`{"alg":"HS256"}`:                              "type",
	} {
		expect(t, vm, bearer(raw(header, payload)), reason)
	}
}

func TestRoutePolicy(t *testing.T) {
	vm := start(t, "auth", object{
		"per_route": true,
		"policies":  []object{users, {"name": "m", "tokens": []object{{"sha256": digest("b25l")}}}},
	})
	tok := token(t, "k1", claims(now, nil))
	expect(t, vm, request("/x"), "") // no default policy
	vm.Properties[routeName] = "shop|open|users|"
	expect(t, vm, request("/x"), "missing")
	expect(t, vm, bearer(tok), "")
	vm.Properties[routeName] = "shop|open|m|"
	expect(t, vm, bearer(tok), "unknown_token")
	expect(t, vm, bearer("b25l"), "")
	vm.Properties[routeName] = "shop|open|-|"
	expect(t, vm, request("/x"), "")
	vm.Properties[routeName] = "shop|open|gone|"
	expect(t, vm, bearer(tok), "unknown_policy")
}

func TestIdentityCannotBeForged(t *testing.T) {
	vm := start(t, "auth", authUsers())
	tok := token(t, "k1", claims(now, object{"sub": nil}))
	h := append(bearer(tok), [2]string{"x-auth-sub", "root"}, [2]string{"X-Auth-Roles", "owner"},
		[2]string{"x-auth-sub", "root2"}, [2]string{"X_auth_sub", "root3"}, [2]string{"x-other", "1"})
	o := expect(t, vm, h, "")
	var got []string
	for _, kv := range o.Headers {
		if strings.HasPrefix(strings.ToLower(kv[0]), "x") || kv[0] == "authorization" {
			got = append(got, kv[0]+"="+kv[1])
		}
	}
	if want := []string{"x-other=1", "x-auth-roles=admin"}; !slices.Equal(got, want) {
		t.Errorf("went on with %q, want %q", got, want)
	}
	o = expect(t, vm, append(request("/healthz"), [2]string{"x-auth-sub", "root"}), "")
	if _, forged := o.Headers.Get("x-auth-sub"); forged {
		t.Error("a forged identity passed on an exempt path")
	}
}

func TestConfigurations(t *testing.T) {
	vm := start(t, "auth", authUsers())
	tok := token(t, "k1", claims(now, nil))
	policy := func(p object) object { return object{"policies": []object{p}} }
	keys := func(k ...jwk) object { return policy(object{"name": "p", "jwt": object{"keys": k}}) }
	for _, c := range []any{
		"x",
		object{"polices": []object{}},
		object{"default_policy": "p"},
		object{"realm": "a\"b"},
		policy(object{"name": "p"}), policy(object{"tokens": []object{{"sha256": digest("x")}}}),
		keys(), keys(jwk{"a", "HS256", b64(secret256[:31])}), keys(jwk{"a", "HS512", b64(secret384)}),
		keys(jwk{"a", "RS256", b64(secret256)}), keys(jwk{"a", "none", ""}),
		keys(jwk{"a", "HS256", b64(secret256)}, jwk{"a", "HS256", b64(secret384)}),
		keys(jwk{"a", "HS256", b64(secret256) + "="}),
		policy(object{"name": "p", "tokens": []object{{"sha256": "00"}}}),
		policy(object{
			"name": "p", "tokens": []object{{"sha256": digest("x")}},
			"exempt_paths": []object{{"path": "/a/../b"}},
		}),
		policy(object{"name": "p", "jwt": object{
			"keys":           []jwk{{"a", "HS256", b64(secret256)}},
			"forward_claims": []object{{"claim": "sub", "header": "host"}},
		}}),
		policy(object{"name": "p", "jwt": object{
			"keys":           []jwk{{"a", "HS256", b64(secret256)}},
			"forward_claims": []object{{"claim": "sub", "header": "X-Upper"}},
		}}),
		policy(object{"name": "p", "jwt": object{"keys": []jwk{{"a", "HS256", b64(secret256)}}, "leeway_seconds": 3601}}),
		object{"policies": []object{users, users}},
	} {
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		took, err := vm.Configure(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if took {
			t.Errorf("took %s", b)
		}
		if line := vm.Logs[len(vm.Logs)-1]; strings.Contains(line, "0123") || strings.Contains(line, b64(secret256)[:8]) {
			t.Errorf("a secret is in the log: %s", line)
		}
		expect(t, vm, bearer(tok), "") // the old one stays
	}
	for _, text := range []string{"", "{}x", "{\"policies\":[],\"policies\":[]}", "\xff", strings.Repeat("[", 100000)} {
		if took, err := vm.Configure(t.Context(), []byte(text)); took || err != nil {
			t.Errorf("took %.20q (%v)", text, err)
		}
	}
}
