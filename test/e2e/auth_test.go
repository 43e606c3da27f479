package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/marchproxy/marchproxy/test/harness"
)

const (
	firstSecret  = "a first secret of thirty-two bytes"
	secondSecret = "another secret of thirty-two bytes"
	opaque       = "b3BhcXVlLXRva2VuLWZvci1hLW1hY2hpbmU="
)

// TestAuthPolicy: a policy is put, and a real Envoy enforces it; keys and paths change under an open
// connection and a running WebSocket, which notice nothing else.
func TestAuthPolicy(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	url := s.API + "/v1/auth-policies/staff?wait=live"
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}}`, 201)
	policy := func(keys string, more string) string {
		return `{"spec":{"jwt":{"keys":[` +
			keys +
			`],"forward_claims":[{"claim":["sub"],"header":"x-user"}],"required_claims":[{"claim":["role"],"values":["admin"]}]},
			"tokens":[{"name":"ci","value":"` + opaque + `","subject":"ci"}],"strip":true` + more + `}}`
	}
	// Before there is any policy, a connection and a WebSocket are open.
	call(t, s, "PUT", s.API+"/v1/routes/ws?wait=live", `{"spec":{"hosts":["ws.test"],"backends":[{"service":"web"}],`+
		`"websocket":true}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/open?wait=live", `{"spec":{"hosts":["a.test"],"path":{"prefix":"/open"},`+
		`"backends":[{"service":"web"}]}}`, 201)
	ws := visit(t, s, "ws.test")
	if status, _, _ := ws.get("/", "", "Upgrade: websocket", "Connection: Upgrade"); status != 101 {
		t.Fatalf("upgrade: %d", status)
	}
	ws.say("before")
	v := visit(t, s, "a.test")
	v.want(200, "/open", "")

	call(t, s, "PUT", url, policy(hmacKey("k1", firstSecret), `,"exempt_paths":[{"path":"/public","prefix":true}]`), 201)
	call(t, s, "PUT", s.API+"/v1/routes/private?wait=live", `{"spec":{"hosts":["a.test"],"auth_policy":"staff",`+
		`"backends":[{"service":"web"}]}}`, 201)
	admin := jwt.MapClaims{"sub": "ann", "role": "admin"}
	first, second := signed(t, "k1", firstSecret, admin), signed(t, "k2", secondSecret, admin)

	status, body, header := v.get("/x", "")
	if status != 401 || header.Get("WWW-Authenticate") == "" || !strings.Contains(body, `"missing_credentials"`) {
		t.Errorf("without a token: %d %s %q", status, body, header.Get("WWW-Authenticate"))
	}
	if got := v.want(200, "/x", first, "X-User: root"); got != "Authorization=;X-User=ann;X-License-Key=;" {
		t.Errorf("the backend gets %s", got)
	}
	v.want(401, "/x", second)
	v.want(403, "/x", signed(t, "k1", firstSecret, jwt.MapClaims{"sub": "ann"}))
	v.want(401, "/x", signed(t, "k1", firstSecret,
		jwt.MapClaims{"role": "admin", "exp": time.Now().Add(-2 * time.Minute).Unix()}))
	v.want(200, "/public/x", "")
	v.want(401, "/publicx", "")
	if got := v.want(200, "/open", "", "X-User: root"); !strings.Contains(got, "X-User=;") {
		t.Errorf("a client forges an identity where there is no policy: %s", got)
	}

	// Rotation: two keys, then the old one goes. A write without the secret keeps the stored one.
	call(t, s, "PUT", url, policy(`{"kid":"k1","algorithm":"HS256"},`+hmacKey("k2", secondSecret), ""), 200)
	v.want(200, "/x", first)
	v.want(200, "/x", second)
	v.want(401, "/public/x", "")
	call(t, s, "PUT", url, policy(`{"kid":"k2","algorithm":"HS256"}`, ""), 200)
	v.want(401, "/x", first)
	v.want(200, "/x", second)

	shown := fmt.Sprint(call(t, s, "GET", s.API+"/v1/auth-policies/staff", nil, 200))
	for _, secret := range []string{firstSecret, secondSecret, opaque, "sealed:"} {
		if strings.Contains(shown, secret) {
			t.Errorf("a read shows %s", secret)
		}
	}
	ws.say("after")
	if n, err := relistened(t, s); err != nil || n != 0 {
		t.Errorf("%d listeners were changed (%v): ECDS filter configs are there to avoid that", n, err)
	}
	call(t, s, "DELETE", s.API+"/v1/auth-policies/staff", nil, 409)
	call(t, s, "PUT", s.API+"/v1/routes/private?wait=live", `{"spec":{"hosts":["a.test"],"auth_policy":"none",`+
		`"backends":[{"service":"web"}]}}`, 200)
	v.want(200, "/x", "")
	call(t, s, "DELETE", s.API+"/v1/auth-policies/staff?wait=live", nil, 200)
	ws.say("at the end")
}

// relistened counts the listeners that Envoy has modified since its start.
func relistened(t *testing.T, s *harness.System) (n int, err error) {
	t.Helper()
	_, raw, err := s.Call(t.Context(), "GET",
		s.Admin+"/stats?filter=listener_manager.listener_(modified|in_place_updated)", nil)
	for line := range strings.Lines(string(raw)) {
		var one int
		if _, value, ok := strings.Cut(line, ": "); ok {
			_, err = fmt.Sscan(value, &one)
			n += one
		}
	}
	return n, err
}
