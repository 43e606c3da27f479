package security

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/marchproxy/marchproxy/test/provider"
)

const callback = "/v1/session/oidc/callback"

// visitor is a browser that follows where it is led, but not to the api's own pages: what the api says is looked at.
type visitor struct {
	system
	client *http.Client
	jar    http.CookieJar
}

func (s system) visitor() *visitor {
	s.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.Fatal(err)
	}
	return &visitor{s, &http.Client{
		Jar: loopback{jar}, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			if strings.HasPrefix(r.URL.Path, "/ui/") {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}, loopback{jar}}
}

// loopback keeps secure cookies of this machine, as browsers do.
type loopback struct{ http.CookieJar }

// Cookies implements http.CookieJar.
func (l loopback) Cookies(u *url.URL) []*http.Cookie {
	https := *u
	https.Scheme = "https"
	return l.CookieJar.Cookies(&https)
}

// get follows an address, and says where it ends.
func (v *visitor) get(address string) (*http.Response, string) {
	v.Helper()
	resp, err := v.client.Get(address)
	if err != nil {
		v.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		v.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp, string(raw)
}

// signIn signs in by the provider's form, and says where the api leads to.
func (v *visitor) signIn(name string) string {
	v.Helper()
	resp, form := v.get(v.API + "/v1/session/oidc")
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(form)
	if id == nil {
		v.Fatalf("the provider shows no form: %s %d %s", resp.Request.URL, resp.StatusCode, form)
	}
	resp, err := v.client.PostForm(resp.Request.URL.Scheme+"://"+resp.Request.URL.Host+"/login/username", url.Values{
		"id": {id[1]}, "username": {name}, "password": {provider.Password},
	})
	if err != nil {
		v.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.Header.Get("Location")
}

// who is who the api takes it for.
func (v *visitor) who() (status int, said string) {
	v.Helper()
	resp, raw := v.get(v.API + "/v1/session")
	return resp.StatusCode, raw
}

// TestProvider: somebody signs in at a real provider, with the role that his groups have at that moment.
func TestProvider(t *testing.T) {
	s := start(t)
	p := provider.Start(t, s.API+callback)
	s.again(p.Env("crew=editor,captains=operator"))
	p.Groups("carol", "guests", "crew", "captains")
	p.Groups("dave", "guests")
	v := s.visitor()
	if to := v.signIn("carol"); to != "/ui/" {
		t.Fatalf("carol is led to %q", to)
	}
	if status, said := v.who(); status != 200 || !strings.Contains(said, `"name":"carol","role":"operator"`) ||
		!strings.Contains(said, `"user":true`) || strings.Contains(said, `"password":true`) {
		t.Errorf("carol is %d %s", status, said)
	}
	if to := s.visitor().signIn("dave"); to != "/ui/?sign_in=no-role" {
		t.Errorf("dave, whose groups have no role, is led to %q", to)
	}
	if n := len(s.must("GET", "/v1/users", nil, 200)["items"].([]any)); n != 1 {
		t.Errorf("there are %d users, want carol alone", n)
	}
	// Her role is the provider's to say; she can be bound and disabled here.
	status, raw := s.as(s.admin(), "PATCH", s.API+"/v1/users/carol", `{"role":"admin"}`)
	if status != 422 || !strings.Contains(raw, "is for "+p.URL+" to say") {
		t.Errorf("her role is changed here: %d %s", status, raw)
	}
	// A group is taken away: at the next sign-in, in every browser.
	p.Groups("carol", "crew")
	other := s.visitor()
	other.signIn("carol")
	for what, b := range map[string]*visitor{"the new": other, "the old": v} {
		if _, said := b.who(); !strings.Contains(said, `"role":"editor"`) {
			t.Errorf("without captains %s session is %s", what, said)
		}
	}
	p.Groups("carol")
	if to := s.visitor().signIn("carol"); to != "/ui/?sign_in=no-role" {
		t.Errorf("without any group carol is led to %q", to)
	}
	if status, said := v.who(); status != 401 {
		t.Errorf("without any group her session is %d %s", status, said)
	}
	p.Groups("carol", "crew")
	s.must("PATCH", "/v1/users/carol", map[string]any{"disabled": true}, 200)
	if to := s.visitor().signIn("carol"); to != "/ui/?sign_in=disabled" {
		t.Errorf("disabled, carol is led to %q", to)
	}
	// Somebody who is called here as a user with a password is not him.
	s.user("erin", "admin", nil)
	p.Groups("erin", "crew")
	if to := s.visitor().signIn("erin"); to != "/ui/?sign_in=name" {
		t.Errorf("another erin is led to %q", to)
	}
	// The provider is away: who has a password signs in all the same.
	s.in("erin")
}

// admin is the system's own token.
func (s system) admin() string {
	s.Helper()
	token, err := s.Token()
	if err != nil {
		s.Fatal(err)
	}
	return token
}

// again starts the system again with more settings.
func (s system) again(env []string) {
	s.Helper()
	if err := s.Stop(); err != nil {
		s.Fatal(err)
	}
	s.System.Setenv(env...)
	if err := s.System.Run(s.Context()); err != nil {
		s.Fatal(err)
	}
}

// liar is a provider that answers what a test wants.
type liar struct {
	*httptest.Server
	t      *testing.T
	key    *rsa.PrivateKey
	tokens int
	// claims and sign make the next token.
	claims func(map[string]any)
	sign   *rsa.PrivateKey
	code   string
	verify bool // whether the code's verifier was sent
	nonce  string
}

func newLiar(t *testing.T) *liar {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	h := &liar{t: t, key: key}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": h.URL, "authorization_endpoint": h.URL + "/auth", "token_endpoint": h.URL + "/token",
			"jwks_uri": h.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		h.tokens++
		h.code, h.verify = r.FormValue("code"), len(r.FormValue("code_verifier")) >= 43
		claims := map[string]any{
			"iss": h.URL, "aud": "marchproxy", "sub": "mallory", "preferred_username": "mallory", "groups": []string{"crew"},
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "nonce": h.nonce,
		}
		h.claims(claims)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: h.sign},
			(&jose.SignerOptions{}).WithHeader("kid", "k"))
		if err != nil {
			t.Error(err)
			return
		}
		raw, err := json.Marshal(claims)
		if err != nil {
			t.Error(err)
			return
		}
		signed, err := signer.Sign(raw)
		if err != nil {
			t.Error(err)
			return
		}
		jwt, err := signed.CompactSerialize()
		if err != nil {
			t.Error(err)
			return
		}
		answer(w, map[string]any{"access_token": "x", "token_type": "Bearer", "expires_in": 60, "id_token": jwt})
	})
	h.Server = httptest.NewServer(mux)
	t.Cleanup(h.Close)
	return h
}

// TestHostileProvider: what a provider, or somebody between, says of a person is believed only where it is signed by the
// provider, for this api, in time, for what this browser has begun, and once.
func TestHostileProvider(t *testing.T) {
	s := start(t)
	h := newLiar(t)
	s.again([]string{
		"API_OIDC_ISSUER=" + h.URL, "API_OIDC_CLIENT_ID=marchproxy", "API_OIDC_CLIENT_SECRET=s", "API_OIDC_CALLBACK=" +
			s.API + callback, "API_OIDC_ROLES=crew=viewer",
	})
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	// begin goes to the provider, and says with what.
	begin := func(v *visitor) url.Values {
		t.Helper()
		stop := *v.client
		stop.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		resp, err := stop.Get(s.API + "/v1/session/oidc")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		to, err := resp.Location()
		if err != nil {
			t.Fatalf("%d: %v", resp.StatusCode, err)
		}
		c := resp.Cookies()
		if len(c) != 1 || !c[0].HttpOnly || !c[0].Secure || c[0].SameSite != http.SameSiteLaxMode ||
			strings.Contains(c[0].Value, to.Query().Get("state")) {
			t.Errorf("the cookie of what was begun: %+v", c)
		}
		q := to.Query()
		if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 40 ||
			len(q.Get("nonce")) < 40 || q.Get("state") == q.Get("nonce") {
			t.Errorf("what the provider is asked: %v", q)
		}
		return q
	}
	back := func(v *visitor, query string) string {
		t.Helper()
		resp, _ := v.get(s.API + callback + "?" + query)
		return resp.Header.Get("Location")
	}
	for what, x := range map[string]struct {
		claims func(map[string]any)
		sign   *rsa.PrivateKey
		to     string
	}{
		"right":           {func(map[string]any) {}, h.key, "/ui/"},
		"another's token": {func(c map[string]any) { c["aud"] = "another" }, h.key, "/ui/?sign_in=invalid"},
		"a token that is over": {
			func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }, h.key, "/ui/?sign_in=invalid",
		},
		"another nonce":       {func(c map[string]any) { c["nonce"] = "of another sign-in" }, h.key, "/ui/?sign_in=invalid"},
		"no nonce":            {func(c map[string]any) { delete(c, "nonce") }, h.key, "/ui/?sign_in=invalid"},
		"another issuer":      {func(c map[string]any) { c["iss"] = "https://evil.example" }, h.key, "/ui/?sign_in=invalid"},
		"another's signature": {func(map[string]any) {}, other, "/ui/?sign_in=invalid"},
		"no groups":           {func(c map[string]any) { c["groups"] = []string{} }, h.key, "/ui/?sign_in=no-role"},
		"groups that are none": {
			func(c map[string]any) { c["groups"] = map[string]any{"crew": true} }, h.key, "/ui/?sign_in=no-role",
		},
	} {
		v := s.visitor()
		q := begin(v)
		h.claims, h.sign, h.nonce = x.claims, x.sign, q.Get("nonce")
		to := back(v, "code=c&state="+q.Get("state"))
		if to != x.to {
			t.Errorf("%s: the browser is led to %q, want %q", what, to, x.to)
		}
		if status, said := v.who(); (status == 200) != (x.to == "/ui/") {
			t.Errorf("%s: the browser is then %d %s", what, status, said)
		}
		if !h.verify || h.code != "c" {
			t.Errorf("%s: the code was exchanged without its verifier", what)
		}
	}
	h.claims, h.sign = func(map[string]any) {}, h.key
	asked := h.tokens
	v, stranger := s.visitor(), s.visitor()
	q := begin(v)
	h.nonce = q.Get("nonce")
	if to := back(v, "code=c&state="+q.Get("nonce")); to != "/ui/?sign_in=expired" {
		t.Errorf("with another state the browser is led to %q", to)
	}
	// What another browser has begun, as somebody would have it who lures a victim into his own account.
	q = begin(v)
	begin(stranger)
	if to := back(stranger, "code=c&state="+q.Get("state")); to != "/ui/?sign_in=expired" {
		t.Errorf("with another browser's state the browser is led to %q", to)
	}
	if to := back(v, "code=c&iss=https://evil.example&state="+q.Get("state")); to != "/ui/?sign_in=invalid" {
		t.Errorf("with another provider's answer the browser is led to %q", to)
	}
	if to := back(v, "error=access_denied&state=x"); to != "/ui/?sign_in=denied" {
		t.Errorf("with a refusal the browser is led to %q", to)
	}
	if h.tokens != asked {
		t.Errorf("%d codes were exchanged for answers that were not to be looked at", h.tokens-asked)
	}
	// The same answer with the same cookie again.
	q = begin(v)
	h.nonce = q.Get("nonce")
	at, err := url.Parse(s.API)
	if err != nil {
		t.Fatal(err)
	}
	kept := v.jar.Cookies(at)
	if to := back(v, "code=c&state="+q.Get("state")); to != "/ui/" {
		t.Errorf("led to %q", to)
	}
	replay := s.visitor()
	https := *at
	https.Scheme = "https"
	for _, c := range kept {
		c.Secure, c.Path = true, "/"
	}
	replay.jar.SetCookies(&https, kept)
	if to := back(replay, "code=c&state="+q.Get("state")); to != "/ui/?sign_in=expired" {
		t.Errorf("the same answer again leads to %q", to)
	}
	h.Close()
	if to := back(replay, "code=c&state=x"); to != "/ui/?sign_in=expired" {
		t.Errorf("led to %q", to)
	}
}
