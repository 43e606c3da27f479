package security

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const password = "seven horses sing at noon"

// user makes one.
func (s system) user(name, role string, bounds map[string][]string) {
	s.Helper()
	ask := map[string]any{"name": name, "role": role, "password": password}
	if bounds != nil {
		ask["bounds"] = bounds
	}
	s.must("POST", "/v1/users", ask, 201)
}

// enter signs in with a password.
func (b *browser) enter(name, secret string) *http.Response {
	b.Helper()
	raw, err := json.Marshal(map[string]string{"name": name, "password": secret})
	if err != nil {
		b.Fatal(err)
	}
	resp := b.send("POST", "/v1/session/password", string(raw))
	if resp.StatusCode == http.StatusCreated {
		b.kept(resp)
	}
	return resp
}

// kept has the browser keep the cookie of an answer, and looks at it.
func (b *browser) kept(resp *http.Response) {
	b.Helper()
	cookies := resp.Cookies()
	if len(cookies) != 1 {
		b.Fatalf("cookies: %v", cookies)
	}
	c := cookies[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" ||
		!strings.HasPrefix(c.Name, "__Host-") || len(c.Value) < 40 || c.Value == b.cookie {
		b.Errorf("the cookie: %+v", c)
	}
	b.cookie = c.Value
}

// in is a browser of somebody who has signed in.
func (s system) in(name string) *browser {
	s.Helper()
	b := &browser{system: s, origin: s.API}
	if resp := b.enter(name, password); resp.StatusCode != http.StatusCreated {
		raw, err := io.ReadAll(resp.Body)
		s.Fatalf("%s signs in: %d %s %v", name, resp.StatusCode, raw, err)
	}
	return b
}

// TestAccounts: a user does what his role and bounds allow, from the pages of this server alone; what ends his sessions
// ends all of them, and what is changed of him holds from the next request on.
func TestAccounts(t *testing.T) {
	s := start(t)
	s.user("ann", "admin", nil)
	s.user("bob", "editor", map[string][]string{"hosts": {"b.example.com"}})
	ann, bob := s.in("ann"), s.in("bob")
	route := func(host string) string {
		return `{"spec":{"hosts":["` + host + `"],"direct_response":{"status":204}}}`
	}
	bob.says("who he is", bob.send("GET", "/v1/session", ""), 200, `"user":true,"password":true`)
	bob.says("within his bounds", bob.send("PUT", "/v1/routes/b", route("b.example.com")), 201, "")
	bob.says("outside of them", bob.send("PUT", "/v1/routes/c", route("c.example.com")), 403, `user \"bob\" is bound to`)
	bob.says("above his role", bob.send("GET", "/v1/users", ""), 403, "needs admin")
	for _, x := range []struct{ method, path, body string }{
		{"POST", "/v1/users", `{"name":"eve","role":"admin","password":"` + password + `"}`},
		{"PATCH", "/v1/users/bob", `{"role":"admin"}`},
		{"DELETE", "/v1/users/ann", ""},
	} {
		bob.says(x.method+" by an editor", bob.send(x.method, x.path, x.body), 403, "needs admin")
	}
	// Another site's page makes the browser send something.
	for _, x := range []struct{ method, path, body string }{
		{"POST", "/v1/users", `{"name":"eve","role":"admin","password":"` + password + `"}`},
		{"POST", "/v1/account/password", `{"current":"` + password + `","password":"` + password + ` x"}`},
		{"POST", "/v1/account/tokens", `{"name":"eve","role":"admin"}`},
		{"POST", "/v1/session/password", `{"name":"bob","password":"` + password + `"}`},
	} {
		ann.says("another site's "+x.path, ann.send(x.method, x.path, x.body, "Origin", "https://evil.example",
			"Sec-Fetch-Site", "cross-site"), 403, "another site")
	}
	// A session that somebody has put into the browser before is of no use to them.
	planted := &browser{system: s, origin: s.API, cookie: bob.cookie}
	if resp := bob.enter("bob", password); resp.StatusCode != http.StatusCreated {
		t.Fatalf("signing in again: %d", resp.StatusCode)
	}
	planted.says("the session before", planted.send("GET", "/v1/session", ""), 401, "the session has ended")

	// His own tokens do no more than he may, also when he may less later.
	year := time.Now().Add(300 * 24 * time.Hour).UTC().Format(time.RFC3339)
	own := func(name, role, more string) string {
		return `{"name":"` + name + `","role":"` + role + `","expires_at":"` + year + `"` + more + `}`
	}
	bob.says("a token above his role", bob.send("POST", "/v1/account/tokens", own("x", "operator", "")), 422, "more than yours")
	bob.says("a token outside of his bounds", bob.send("POST", "/v1/account/tokens",
		own("x", "editor", `,"bounds":{"hosts":["example.com"]}`)), 422, "wider than your own")
	bob.says("a token without end", bob.send("POST", "/v1/account/tokens", `{"name":"x","role":"editor"}`), 422, "is missing")
	var token struct{ Token, Name string }
	resp := bob.send("POST", "/v1/account/tokens", own("ci", "editor", ""))
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil || resp.StatusCode != http.StatusCreated || token.Name != "ci" {
		t.Fatalf("a token of his own: %d %v %+v", resp.StatusCode, err, token)
	}
	as := func(what, method, path, body string, status int, text string) {
		t.Helper()
		if got, raw := s.as(token.Token, method, s.API+path, body); got != status || !strings.Contains(raw, text) {
			t.Errorf("%s: %d %s, want %d with %q", what, got, raw, status, text)
		}
	}
	as("his token within his bounds", "PUT", "/v1/routes/b", route("b.example.com"), 200, "")
	as("his token outside of them", "PUT", "/v1/routes/c", route("c.example.com"), 403, "is bound to")
	as("his token makes another", "POST", "/v1/account/tokens", own("y", "editor", ""), 409, "tokens have no account")
	as("his token sees his sessions", "GET", "/v1/account/sessions", "", 409, "tokens have no account")
	s.must("PATCH", "/v1/users/bob", map[string]any{"role": "viewer", "bounds": map[string]any{}}, 200)
	bob.says("with a lesser role", bob.send("PUT", "/v1/routes/b", route("b.example.com")), 403, `user \"bob\" has the role viewer`)
	as("his token then", "PUT", "/v1/routes/b", route("b.example.com"), 403, `user \"bob\" has the role viewer`)
	s.must("PATCH", "/v1/users/bob", map[string]any{"role": "operator"}, 200)
	as("his token is not more than it was", "PUT", "/v1/gateways/g", `{"spec":{}}`, 403, "needs operator")

	// Sessions: he sees his own, and ends them.
	other := s.in("bob")
	raw, err := io.ReadAll(bob.send("GET", "/v1/account/sessions", "").Body)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []struct {
			ID      string
			Current bool
		}
	}
	if err := json.Unmarshal(raw, &list); err != nil || len(list.Items) != 2 || strings.Contains(string(raw), bob.cookie) {
		t.Fatalf("his sessions: %s %v", raw, err)
	}
	for _, x := range list.Items {
		ann.says("another user's session", ann.send("DELETE", "/v1/account/sessions/"+x.ID, ""), 404, "no such session of yours")
		if !x.Current {
			bob.says("ending one", bob.send("DELETE", "/v1/account/sessions/"+x.ID, ""), 204, "")
		}
	}
	other.says("what was ended", other.send("GET", "/v1/session", ""), 401, "has ended")

	// Another password ends the others, and this one's secret.
	other = s.in("bob")
	stolen := &browser{system: s, origin: s.API, cookie: bob.cookie}
	change := `{"current":"` + password + `","password":"eight horses sing at night"}`
	bob.says("a wrong present password", bob.send("POST", "/v1/account/password",
		strings.Replace(change, "seven", "nine", 1)), 422, "is not your password")
	bob.says("a short one", bob.send("POST", "/v1/account/password", `{"current":"`+password+`","password":"short"}`), 422,
		"give it 12 to 256")
	resp = bob.send("POST", "/v1/account/password", change)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("another password: %d", resp.StatusCode)
	}
	bob.kept(resp)
	bob.says("with the new cookie", bob.send("GET", "/v1/session", ""), 200, "bob")
	stolen.says("with the old cookie", stolen.send("GET", "/v1/session", ""), 401, "has ended")
	other.says("another browser", other.send("GET", "/v1/session", ""), 401, "has ended")
	bob.says("the old password", (&browser{system: s, origin: s.API}).enter("bob", password), 401, "is wrong")

	// Disabled and deleted: everything of his is over, at once.
	s.must("PATCH", "/v1/users/bob", map[string]any{"disabled": true}, 200)
	bob.says("when disabled", bob.send("GET", "/v1/session", ""), 401, "has ended")
	bob.says("signing in when disabled", bob.enter("bob", "eight horses sing at night"), 401, "is wrong")
	as("his token when disabled", "GET", "/v1/routes", "", 401, "not known")
	s.must("PATCH", "/v1/users/bob", map[string]any{"disabled": false}, 200)
	as("his token when enabled again", "GET", "/v1/routes", "", 200, "")
	s.must("DELETE", "/v1/users/bob", nil, 200)
	as("his token when deleted", "GET", "/v1/routes", "", 401, "not known")

	// The bootstrap token can go when there is an admin who signs in; he is the last way in then.
	s.must("DELETE", "/v1/tokens/bootstrap", nil, 200)
	ann.says("the last admin", ann.send("DELETE", "/v1/users/ann", ""), 409, "last way in for an admin")
	ann.says("the last admin disables himself", ann.send("PATCH", "/v1/users/ann", `{"disabled":true}`), 409, "last way in")

	// No password stands anywhere: neither in a log nor in a file of the database or the streams.
	for _, secret := range []string{password, "eight horses sing at night"} {
		if where := holding(t, s.Dir, secret); where != "" {
			t.Errorf("%s has the password", where)
		}
	}
	audit, err := io.ReadAll(ann.send("GET", "/v1/audit?kind=User", "").Body)
	if err != nil || strings.Contains(string(audit), "argon2") || !strings.Contains(string(audit), "another password") {
		t.Errorf("the audit: %s %v", audit, err)
	}
}

// holding names a file below a directory that has a text.
func holding(t *testing.T, dir, text string) (where string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		var raw []byte
		if err == nil && d.Type().IsRegular() {
			files++
			raw, err = os.ReadFile(path)
		}
		if errors.Is(err, fs.ErrNotExist) { // it was deleted meanwhile
			err = nil
		}
		if strings.Contains(string(raw), text) {
			where = path
		}
		return err
	})
	if err != nil || files < 10 {
		t.Fatalf("%d files in %s: %v", files, dir, err)
	}
	return where
}

// TestGuessing: guesses at an account are slowed down with an entry in the audit and a count, and answered alike whether
// there is such a user; a browser that was in before gets in all the same.
func TestGuessing(t *testing.T) {
	s := start(t)
	s.user("ann", "editor", nil)
	s.user("bob", "editor", nil)
	b := &browser{system: s, origin: s.API}
	took := map[string][]time.Duration{}
	for range 5 {
		for _, name := range []string{"bob", "nobody"} {
			began := time.Now()
			b.says("a wrong password for "+name, b.enter(name, "wrong"), 401, "the name or the password is wrong, or the user is disabled")
			took[name] = append(took[name], time.Since(began))
		}
	}
	b.says("a name that no database reads", b.enter("a\x00b", "wrong"), 400, "has a zero character")
	for name := range took {
		slices.Sort(took[name])
	}
	if known, unknown := took["bob"][0], took["nobody"][0]; unknown < known/3 || known < unknown/3 {
		t.Errorf("a wrong password is answered after %v, a wrong name after %v", known, unknown)
	}
	for _, name := range []string{"bob", "nobody"} {
		resp := b.enter(name, password)
		if resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", name)
		}
		b.says("the sixth for "+name, resp, 429, "too many wrong")
	}
	ann := s.in("ann") // whose account is another, from the same address
	ann.says("another account", ann.send("GET", "/v1/session", ""), 200, "ann")

	entries := s.must("GET", "/v1/audit?kind=User&object=bob", nil, 200)["items"].([]any)
	first := entries[0].(map[string]any)
	if len(entries) != 2 || first["action"] != "refuse" || !strings.Contains(fmt.Sprint(first["message"]), "127.0.0.1") {
		t.Errorf("the audit: %v", entries)
	}
	if n := len(s.must("GET", "/v1/audit?kind=User&object=nobody", nil, 200)["items"].([]any)); n != 0 {
		t.Errorf("a name that nobody has is in the audit, which may be somebody's password")
	}
	_, metrics := s.as("none", "GET", s.API+"/metrics", "")
	for _, line := range []string{
		`marchproxy_api_sign_ins_total{how="password",result="ok"} 1`,
		`marchproxy_api_sign_ins_total{how="password",result="wrong"} 10`,
		`marchproxy_api_sign_ins_total{how="password",result="slowed"} 2`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	if v := s.must("GET", "/v1/audit/verify", nil, 200); v["broken"] != nil {
		t.Errorf("the audit's chain: %v", v)
	}
}
