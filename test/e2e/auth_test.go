package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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

// signed is a token that is good for five minutes.
func signed(t testing.TB, kid, secret string, claims jwt.MapClaims) string {
	t.Helper()
	if claims == nil {
		claims = jwt.MapClaims{}
	}
	if claims["exp"] == nil {
		claims["exp"] = time.Now().Add(5 * time.Minute).Unix()
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	token.Header["kid"] = kid
	s, err := token.SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hmacKey(kid, secret string) string {
	return fmt.Sprintf(`{"kid":%q,"algorithm":"HS256","secret":%q}`, kid, secret)
}

// echo is a backend that answers with the headers it got, and echoes what comes after an upgrade.
func echo(t *testing.T) string {
	t.Helper()
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			for _, name := range []string{"Authorization", "X-User", "X-License-Key"} {
				_, _ = fmt.Fprintf(w, "%s=%s;", name, strings.Join(r.Header.Values(name), ","))
			}
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, rw)
	}))
	t.Cleanup(b.Close)
	return b.URL[strings.LastIndexByte(b.URL, ':')+1:]
}

// visitor keeps one connection.
type visitor struct {
	t    *testing.T
	c    net.Conn
	r    *bufio.Reader
	host string
}

func visit(t *testing.T, s *harness.System, host string) *visitor {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &visitor{t, c, bufio.NewReader(c), host}
}

// get asks for a path; headers are lines.
func (v *visitor) get(path, token string, headers ...string) (int, string, http.Header) {
	v.t.Helper()
	if token != "" {
		headers = append(headers, "Authorization: Bearer "+token)
	}
	return v.ask("GET", path, headers...)
}

func (v *visitor) ask(method, path string, headers ...string) (int, string, http.Header) {
	v.t.Helper()
	_ = v.c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(v.c, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, path, v.host, strings.Join(append(headers, ""), "\r\n")); err != nil {
		v.t.Fatal(err)
	}
	resp, err := http.ReadResponse(v.r, nil)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, "", resp.Header
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	if resp.Close || resp.Header.Get("Connection") == "close" {
		v.t.Errorf("%s %s: the connection is closed", method, path)
	}
	return resp.StatusCode, string(body), resp.Header
}

func (v *visitor) want(status int, path, token string, headers ...string) string {
	v.t.Helper()
	got, body, _ := v.get(path, token, headers...)
	if got != status {
		v.t.Errorf("GET %s: status %d, want %d: %s", path, got, status, body)
	}
	return body
}

// say writes on an upgraded connection and waits for the echo.
func (v *visitor) say(text string) {
	v.t.Helper()
	_ = v.c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(v.c, text); err != nil {
		v.t.Fatalf("the WebSocket is gone: %v", err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(v.r, got); err != nil || string(got) != text {
		v.t.Fatalf("the WebSocket says %q (%v), want %q", got, err, text)
	}
}

// TestAuthPolicy: a policy is put, and a real Envoy enforces it; keys and paths change under an open
// connection and a running WebSocket, which notice nothing else.
func TestAuthPolicy(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	url := s.API + "/v1/auth-policies/staff?wait=live"
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}}`, 201)
	policy := func(keys string, more string) string {
		return `{"spec":{"jwt":{"keys":[` + keys + `],"forward_claims":[{"claim":["sub"],"header":"x-user"}],"required_claims":[{"claim":["role"],"values":["admin"]}]},
			"tokens":[{"name":"ci","value":"` + opaque + `","subject":"ci"}],"strip":true` + more + `}}`
	}
	// Before there is any policy, a connection and a WebSocket are open.
	call(t, s, "PUT", s.API+"/v1/routes/ws?wait=live", `{"spec":{"hosts":["ws.test"],"backends":[{"service":"web"}],"websocket":true}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/open?wait=live", `{"spec":{"hosts":["a.test"],"path":{"prefix":"/open"},"backends":[{"service":"web"}]}}`, 201)
	ws := visit(t, s, "ws.test")
	if status, _, _ := ws.get("/", "", "Upgrade: websocket", "Connection: Upgrade"); status != 101 {
		t.Fatalf("upgrade: %d", status)
	}
	ws.say("before")
	v := visit(t, s, "a.test")
	v.want(200, "/open", "")

	call(t, s, "PUT", url, policy(hmacKey("k1", firstSecret), `,"exempt_paths":[{"path":"/public","prefix":true}]`), 201)
	call(t, s, "PUT", s.API+"/v1/routes/private?wait=live", `{"spec":{"hosts":["a.test"],"auth_policy":"staff","backends":[{"service":"web"}]}}`, 201)
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
	v.want(401, "/x", signed(t, "k1", firstSecret, jwt.MapClaims{"role": "admin", "exp": time.Now().Add(-2 * time.Minute).Unix()}))
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
		t.Errorf("%d listeners were changed (%v): slots are for not doing that", n, err)
	}
	call(t, s, "DELETE", s.API+"/v1/auth-policies/staff", nil, 409)
	call(t, s, "PUT", s.API+"/v1/routes/private?wait=live", `{"spec":{"hosts":["a.test"],"auth_policy":"none","backends":[{"service":"web"}]}}`, 200)
	v.want(200, "/x", "")
	call(t, s, "DELETE", s.API+"/v1/auth-policies/staff?wait=live", nil, 200)
	ws.say("at the end")
}

// relistened counts the listeners that Envoy has modified since its start.
func relistened(t *testing.T, s *harness.System) (n int, err error) {
	t.Helper()
	_, raw, err := s.Call(t.Context(), "GET", s.Admin+"/stats?filter=listener_manager.listener_(modified|in_place_updated)", nil)
	for line := range strings.Lines(string(raw)) {
		var one int
		if _, value, ok := strings.Cut(line, ": "); ok {
			_, err = fmt.Sscan(value, &one)
			n += one
		}
	}
	return n, err
}
