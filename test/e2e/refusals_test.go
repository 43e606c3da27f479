package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestRefusals: a client cannot tell by a refusal which engine serves the policy, and an answer of a backend
// that looks like a refusal goes through as it is.
func TestRefusals(t *testing.T) {
	s := start(t, "--no-demo")
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", "Bearer of-the-backend")
		status := map[string]int{"/401": 401, "/403": 403}[r.URL.Path]
		http.Error(w, "Jwt is missing", max(status, 200))
	}))
	defer backend.Close()
	rsa := signers(t)[0]
	put := func(path, spec string) {
		t.Helper()
		call(t, s, "PUT", s.API+path+"?wait=live", `{"spec":`+spec+`}`, 201)
	}
	put("/v1/services/web", `{"endpoints":[{"host":"127.0.0.1","port":`+
		backend.URL[strings.LastIndexByte(backend.URL, ':')+1:]+`}]}`)
	put("/v1/services/nobody", `{"endpoints":[{"host":"127.0.0.1","port":1}]}`)
	const rules = `"issuers":["joe"],"audiences":["shop"],"required_claims":[{"claim":["scope"],"values":["read"],` +
		`"words":true}]`
	for name, keys := range map[string]string{
		"shared": `"keys":[` + hmacKey("k1", firstSecret) + `]`,
		"public": fmt.Sprintf(`"keys":[{"kid":"k1","algorithm":"RS256","public_key":%q}]`, rsa.pem(t)),
		"remote": `"remote_jwks":{"service":"nobody","path":"/keys"}`,
	} {
		put("/v1/auth-policies/"+name, `{"jwt":{`+keys+`,`+rules+`}}`)
		put("/v1/routes/"+name, `{"hosts":["`+name+`.test"],"auth_policy":"`+name+`","backends":[{"service":"web"}]}`)
	}
	put("/v1/routes/direct", `{"hosts":["direct.test"],"direct_response":{"status":401,"body":"Jwt is missing"}}`)
	answer := func(v *visitor, path, authorization string) string {
		t.Helper()
		var headers []string
		if authorization != "" {
			headers = []string{"Authorization: " + authorization}
		}
		status, body, h := v.get(path, "", headers...)
		return fmt.Sprintf("%d %q %q %q %q", status, body, h["Www-Authenticate"], h["Content-Type"], h["Cache-Control"])
	}
	token := func(kid string, change jwt.MapClaims) (shared, public string) {
		t.Helper()
		claims := func() jwt.MapClaims {
			c := jwt.MapClaims{"iss": "joe", "aud": "shop", "scope": "read", "exp": time.Now().Add(5 * time.Minute).Unix()}
			for k, v := range change {
				c[k] = v
			}
			return c
		}
		r := rsa
		r.kid = kid
		return "Bearer " + signed(t, kid, firstSecret, claims()), "Bearer " + r.token(t, claims())
	}
	shared, public := visit(t, s, "shared.test"), visit(t, s, "public.test")
	same := func(what, a, b, want string) {
		t.Helper()
		got, native := answer(shared, "/", a), answer(public, "/", b)
		if got != native || !strings.Contains(got, want) {
			t.Errorf("%s:\nshared secrets: %s\n   public keys: %s\n          want: … %s …", what, got, native, want)
		}
	}
	same("nothing", "", "", `{\"error\":\"unauthorized\",\"reason\":\"missing_credentials\"}\n" ["Bearer `+
		`realm=\"marchproxy\""] ["application/json"] ["no-store"]`)
	same("another scheme", "Basic YW5uOnNlY3JldA==", "Basic YW5uOnNlY3JldA==", `missing_credentials`)
	same("no token", "Bearer x", "Bearer x", `{\"error\":\"unauthorized\",\"reason\":\"invalid_token\"}\n" ["Bearer `+
		`realm=\"marchproxy\", error=\"invalid_token\""]`)
	for _, c := range []struct {
		what   string
		change jwt.MapClaims
		want   string
	}{
		{
			"expired",
			jwt.MapClaims{"exp": time.Now().Add(-5 * time.Minute).Unix()},
			`401 "{\"error\":\"unauthorized\",\"reason\":\"expired_token\"}\n" ["Bearer realm=\"marchproxy\",` +
				` error=\"invalid_token\""]`,
		},
		{
			"not yet",
			jwt.MapClaims{"nbf": time.Now().Add(5 * time.Minute).Unix()},
			`401 "{\"error\":\"unauthorized\",\"reason\":\"invalid_token\"}`,
		},
		{"another issuer", jwt.MapClaims{"iss": "mallory"}, `401 "{\"error\":\"unauthorized\",\"reason\":\"invalid_token\"}`},
		{
			"another audience",
			jwt.MapClaims{"aud": "elsewhere"},
			`401 "{\"error\":\"unauthorized\",\"reason\":\"invalid_token\"}`,
		},
		{
			"a claim is missing",
			jwt.MapClaims{"scope": "write"},
			`403 "{\"error\":\"forbidden\",\"reason\":\"insufficient_claims\"}\n" ["Bearer realm=\"marchproxy\",` +
				` error=\"insufficient_scope\""] ["application/json"] ["no-store"]`,
		},
		{"good", nil, `200 "Jwt is missing\n" ["Bearer of-the-backend"] ["text/plain; charset=utf-8"] []`},
	} {
		a, b := token("k1", c.change)
		same(c.what, a, b, c.want)
	}
	a, b := token("k2", nil)
	same("an unknown key", a, b, `401 "{\"error\":\"unauthorized\",\"reason\":\"invalid_token\"}`)

	a, b = token("k1", nil)
	for _, path := range []string{"/401", "/403"} {
		want := path[1:] + ` "Jwt is missing\n" ["Bearer of-the-backend"] ["text/plain; charset=utf-8"] []`
		if got := answer(shared, path, a); got != want {
			t.Errorf("the backend's answer behind our filter: %s, want %s", got, want)
		}
		if got := answer(public, path, b); got != want {
			t.Errorf("the backend's answer behind Envoy's filter: %s, want %s", got, want)
		}
	}
	if got := answer(visit(t, s, "direct.test"), "/", ""); !strings.HasPrefix(got, `401 "Jwt is missing" [] `) {
		t.Errorf("a route's own 401 is %s", got)
	}
	// Keys that cannot be fetched are no fault of the token.
	if got := answer(visit(t, s, "remote.test"), "/", b); !strings.HasPrefix(got,
		`503 "{\"error\":\"unavailable\",\"reason\":\"unavailable\"}\n"`) {
		t.Errorf("without the identity provider: %s", got)
	}
}

// TestPreflight: a browser asks without credentials whether it may ask. A route with cors answers, whichever engine
// serves its policy, and lets the page read the refusal; a route without one asks for credentials.
func TestPreflight(t *testing.T) {
	s := start(t, "--no-demo")
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}}`, 201)
	for name, keys := range map[string]string{
		"shared": hmacKey("k1", firstSecret),
		"public": fmt.Sprintf(`{"kid":"k1","algorithm":"RS256","public_key":%q}`, signers(t)[0].pem(t)),
	} {
		call(t, s, "PUT", s.API+"/v1/auth-policies/"+name, `{"spec":{"jwt":{"keys":[`+keys+`]}}}`, 201)
		route := func(part, path, more string) {
			t.Helper()
			call(t, s, "PUT", s.API+"/v1/routes/"+name+"-"+part+"?wait=live", `{"spec":{"hosts":["`+name+
				`.test"],"path":{"prefix":"`+path+`"},"backends":[{"service":"web"}],`+more+`}}`, 201)
		}
		policy := `"auth_policy":"` + name + `"`
		route("cors", "/cors", policy+`,"cors":{"allow_origins":[{"exact":"https://page.test"}],"allow_methods":["PUT"],`+
			`"allow_headers":["authorization"]}`)
		route("plain", "/plain", policy)
		route("own", "/own", policy)
		route("own-preflight", "/own", `"auth_policy":"none","methods":["OPTIONS"]`)
		v := visit(t, s, name+".test")
		ask := func(path string, want int) http.Header {
			t.Helper()
			status, body, h := v.ask("OPTIONS", path, "Origin: https://page.test", "Access-Control-Request-Method: PUT",
				"Access-Control-Request-Headers: authorization")
			if status != want {
				t.Errorf("%s: OPTIONS %s: %d %s, want %d", name, path, status, body, want)
			}
			return h
		}
		if h := ask("/cors", 200); h.Get("Access-Control-Allow-Origin") != "https://page.test" ||
			h.Get("Access-Control-Allow-Headers") != "authorization" {
			t.Errorf("%s: the preflight's answer has the headers %v", name, h)
		}
		if status, _, h := v.get("/cors", "", "Origin: https://page.test"); status != 401 ||
			h.Get("Access-Control-Allow-Origin") != "https://page.test" {
			t.Errorf("%s: a refusal that the page cannot read: %d %v", name, status, h)
		}
		ask("/plain", 401)
		ask("/own", 200)
		v.want(401, "/own", "")
	}
}
