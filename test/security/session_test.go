package security

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// browser is a client with cookies, as a page of an origin has it.
type browser struct {
	system
	cookie, origin string
}

// send asks as the browser does from its origin; extra are more headers, name and value in turn.
func (b *browser) send(method, path, body string, extra ...string) *http.Response {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, b.API+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	if b.cookie != "" {
		req.Header.Set("Cookie", "__Host-marchproxy="+b.cookie)
	}
	if b.origin != "" {
		req.Header.Set("Origin", b.origin)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(extra); i += 2 {
		req.Header.Set(extra[i], extra[i+1])
	}
	// No redirect is followed: what the server says is looked at.
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// says is a status with the answer's text.
func (b *browser) says(what string, resp *http.Response, status int, text string) {
	b.Helper()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || !strings.Contains(string(raw), text) {
		b.Errorf("%s: %d %s %v, want %d with %q", what, resp.StatusCode, raw, err, status, text)
	}
}

// signIn begins a session, and looks at its cookie.
func (b *browser) signIn(token string) {
	b.Helper()
	resp := b.send("POST", "/v1/session", `{"token":"`+token+`"}`)
	if resp.StatusCode != http.StatusCreated || len(resp.Cookies()) != 1 {
		b.Fatalf("signing in: %d, %v", resp.StatusCode, resp.Cookies())
	}
	c := resp.Cookies()[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" ||
		!strings.HasPrefix(c.Name, "__Host-") || c.Value == token || len(c.Value) < 40 {
		b.Errorf("the cookie: %+v", c)
	}
	b.cookie = c.Value
}

// TestSession: a session does what its token may, from the pages of this server alone, and is over when somebody signs
// out, when the token is deleted, and for who has known its secret before the sign-in.
func TestSession(t *testing.T) {
	s := start(t)
	token := s.token("person", "editor", nil)
	b := &browser{system: s, origin: s.API}
	route := `{"spec":{"hosts":["mine.example.com"],"direct_response":{"status":204}}}`

	b.says("without a session", b.send("GET", "/v1/routes", ""), 401, "a token is needed")
	b.signIn(token)
	b.says("reading", b.send("GET", "/v1/session", ""), 200, `"role":"editor"`)
	b.says("writing", b.send("PUT", "/v1/routes/mine", route), 201, "")
	b.says("above its role", b.send("GET", "/v1/tokens", ""), 403, "needs admin")
	b.says("a wrong token beside it", b.send("GET", "/v1/routes", "", "Authorization", "Bearer x"), 401, "not known")

	// Another site's page, or another port's of this machine, makes the browser send something.
	for what, headers := range map[string][]string{
		"another site":            {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
		"another port":            {"Origin", "http://localhost:1", "Sec-Fetch-Site", "same-site"},
		"an old browser":          {"Origin", "https://evil.example"},
		"a page without a name":   {"Origin", "null"},
		"a form that is no JSON":  {"Origin", "https://evil.example", "Content-Type", "text/plain"},
		"an origin that is alike": {"Origin", s.API + ".evil.example"},
	} {
		b.says(what, b.send("PUT", "/v1/routes/theirs", route, headers...), 403, "another site")
		b.says(what+" signs in", b.send("POST", "/v1/session", `{"token":"`+token+`"}`, headers...), 403, "another site")
		b.says(what+" signs out", b.send("DELETE", "/v1/session", "", headers...), 403, "another site")
	}
	b.says("what was tried", b.send("GET", "/v1/routes/theirs", ""), 404, "")
	h := b.send("GET", "/v1/routes", "", "Origin", "https://evil.example").Header
	if h.Get("Access-Control-Allow-Origin") != "" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" {
		t.Errorf("another site may read: %v", h)
	}

	// Who has put a session into the browser, or has seen one, has nothing of the next.
	planted := b.cookie
	b.signIn(token)
	if b.cookie == planted {
		t.Error("signing in goes on with the session that was there")
	}
	old := &browser{system: s, cookie: planted, origin: s.API}
	b.says("the session before", old.send("GET", "/v1/session", ""), 401, "the session has ended")

	resp := b.send("DELETE", "/v1/session", "")
	if c := resp.Cookies(); resp.StatusCode != http.StatusNoContent || len(c) != 1 || c[0].MaxAge >= 0 {
		t.Errorf("signing out: %d %v", resp.StatusCode, c)
	}
	b.says("after signing out", b.send("GET", "/v1/session", ""), 401, "the session has ended")

	b.signIn(token)
	s.must("DELETE", "/v1/tokens/person", nil, 200)
	b.says("after its token is deleted", b.send("GET", "/v1/session", ""), 401, "the session has ended")
	for i := range 40 {
		resp := b.send("POST", "/v1/session", `{"token":"mp_guess"}`)
		if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "" && i >= 10 {
			return
		}
		if resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("guess %d: %d", i, resp.StatusCode)
		}
	}
	t.Error("forty guesses of one address are looked at without a pause")
}

// TestPages: the pages have the headers of OWASP's list, no script stands in them, and each has another nonce.
func TestPages(t *testing.T) {
	s := start(t)
	b := &browser{system: s}
	seen := map[string]bool{}
	for _, path := range []string{"/ui/", "/ui/routes", "/ui/routes/a.b"} {
		resp := b.send("GET", path, "")
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %v", path, resp.StatusCode, err)
		}
		csp := resp.Header.Get("Content-Security-Policy")
		_, nonce, _ := strings.Cut(csp, "'nonce-")
		nonce, _, _ = strings.Cut(nonce, "'")
		if seen[nonce] || len(nonce) < 20 || !strings.Contains(string(raw), nonce) {
			t.Errorf("%s: the nonce %q is not new, or not in the page", path, nonce)
		}
		seen[nonce] = true
		for name, has := range map[string]string{
			"Content-Security-Policy": "script-src 'self';", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "Permissions-Policy": "camera=()",
			"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
		} {
			if !strings.Contains(resp.Header.Get(name), has) {
				t.Errorf("%s: %s is %q, without %q", path, name, resp.Header.Get(name), has)
			}
		}
		for _, bad := range []string{"unsafe-inline", "unsafe-eval", "*"} {
			if strings.Contains(csp, bad) {
				t.Errorf("the policy has %s: %s", bad, csp)
			}
		}
		for _, part := range strings.Split(string(raw), "<script")[1:] {
			if !strings.Contains(part[:strings.Index(part, ">")], "src=") {
				t.Errorf("%s has a script in it: %.80s", path, part)
			}
		}
	}
	if resp := b.send("GET", "/", ""); resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "/ui/" {
		t.Errorf("/ answers %d %s", resp.StatusCode, resp.Header.Get("Location"))
	}
	if resp := b.send("GET", "/ui/assets/gone-123.js", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a file that is not there answers %d", resp.StatusCode)
	}
}
