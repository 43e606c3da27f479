// Package provider signs people in by OpenID Connect: with a code and PKCE, at the one provider that the settings name.
package provider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
)

// CallbackPath is where the provider sends the browser back to.
const CallbackPath = "/v1/session/oidc/callback"

// Settings say which provider there is.
type Settings struct {
	// Issuer names it (API_OIDC_ISSUER); "" for none.
	Issuer string
	// ClientID and ClientSecret are what it calls this api (API_OIDC_CLIENT_ID, API_OIDC_CLIENT_SECRET).
	ClientID, ClientSecret string
	// Callback is this api's address for it, as browsers reach it (API_OIDC_CALLBACK).
	Callback string
	// Name is what the button is called (API_OIDC_NAME; single sign-on).
	Name string
	// Claim has the groups (API_OIDC_GROUPS_CLAIM; groups).
	Claim string
	// Scopes are asked for beside openid (API_OIDC_SCOPES; profile email).
	Scopes []string
	// Roles are those of groups (API_OIDC_ROLES).
	Roles map[string]string
}

// Read reads the settings.
func Read(e *process.Env) Settings {
	s := Settings{
		Issuer: e.String("API_OIDC_ISSUER", ""), ClientID: e.String("API_OIDC_CLIENT_ID", ""),
		ClientSecret: e.Secret("API_OIDC_CLIENT_SECRET"), Callback: e.String("API_OIDC_CALLBACK", ""),
		Name: e.String("API_OIDC_NAME", "single sign-on"), Claim: e.String("API_OIDC_GROUPS_CLAIM", "groups"),
		Scopes: strings.FieldsFunc(e.String("API_OIDC_SCOPES", "profile email"), func(r rune) bool {
			return r == ' ' || r == ','
		}),
		Roles: map[string]string{},
	}
	roles := e.String("API_OIDC_ROLES", "")
	if s.Issuer == "" {
		if s.ClientID+s.ClientSecret+s.Callback+roles != "" {
			e.Fail("API_OIDC_ISSUER", "is not set, and other settings of API_OIDC are; set it to the provider's URL, or take "+
				"them out")
		}
		return s
	}
	for name, value := range map[string]string{"API_OIDC_ISSUER": s.Issuer, "API_OIDC_CALLBACK": s.Callback} {
		if !secure(value) {
			e.Fail(name, "must be a URL that begins with https://; http:// is taken of this machine alone")
		}
	}
	if !strings.HasSuffix(s.Callback, CallbackPath) {
		e.Fail("API_OIDC_CALLBACK", "must be this api's address as browsers reach it, with %s, such as "+
			"https://marchproxy.example.com%s; the provider has to be told the same", CallbackPath, CallbackPath)
	}
	if s.ClientID == "" || s.ClientSecret == "" {
		e.Fail("API_OIDC_CLIENT_ID", "or API_OIDC_CLIENT_SECRET is not set; the provider gives both, and the secret is best in "+
			"a file that API_OIDC_CLIENT_SECRET_FILE names")
	}
	for one := range strings.SplitSeq(roles, ",") {
		group, role, ok := strings.Cut(strings.TrimSpace(one), "=")
		if !ok || group == "" || !slices.Contains(auth.Roles, role) {
			e.Fail("API_OIDC_ROLES", "must be group=role, several with commas, such as ops=admin,staff=viewer; the roles are %s",
				strings.Join(auth.Roles, ", "))
			break
		}
		s.Roles[group] = auth.Greater(s.Roles[group], role)
	}
	return s
}

// secure says whether nobody reads on the way to an address.
func secure(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.RawQuery != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// Provider is where people sign in.
type Provider struct {
	Settings
	box    *seal.Box
	client *http.Client

	mu    sync.Mutex
	found *oidc.Provider // nil until it has answered
}

// New returns a Provider, nil where the settings name none. It is asked for the first time when somebody signs in: a
// provider that does not answer keeps nobody else out.
func New(s Settings, box *seal.Box) *Provider {
	if s.Issuer == "" {
		return nil
	}
	// What it answers is read by people's browsers otherwise: nothing of it is to lead this api elsewhere.
	return &Provider{Settings: s, box: box, client: &http.Client{
		Timeout: 10 * time.Second, Transport: limited{http.DefaultTransport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// limited reads no more than a megabyte of an answer.
type limited struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, 1<<20)
	}
	return resp, err
}

// Lasts is how long somebody may take at the provider.
const Lasts = 10 * time.Minute

// flow is one attempt to sign in. It is with the browser, sealed: what others bring is of no use without it.
type flow struct {
	State, Nonce, Verifier string
	At                     time.Time
}

// Errors by which somebody is refused.
var (
	// ErrUnavailable says that the provider does not answer as it should.
	ErrUnavailable = errors.New("the provider does not answer")
	// ErrState says that an answer is not for what this browser has begun, or too late.
	ErrState = errors.New("the provider's answer is not for a sign-in that this browser has begun within ten minutes")
	// ErrToken says that what the provider says of somebody is not to be believed.
	ErrToken = errors.New("the provider's answer is not valid")
)

func (p *Provider) config(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	p.mu.Lock()
	found := p.found
	p.mu.Unlock()
	if found == nil {
		var err error
		if found, err = oidc.NewProvider(ctx, p.Issuer); err != nil {
			return nil, nil, errors.Join(ErrUnavailable, err)
		}
		p.mu.Lock()
		p.found = found
		p.mu.Unlock()
	}
	return found, &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: found.Endpoint(), RedirectURL: p.Callback,
		Scopes: append([]string{oidc.ScopeOpenID}, p.Scopes...),
	}, nil
}

// Begin says where the browser is to go, and what it is to keep meanwhile.
func (p *Provider) Begin(ctx context.Context) (to, sealed string, err error) {
	_, config, err := p.config(oidc.ClientContext(ctx, p.client))
	if err != nil {
		return "", "", err
	}
	f := flow{State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier(), At: time.Now()}
	raw, err := json.Marshal(f)
	if err != nil {
		return "", "", fmt.Errorf("begin to sign in: %w", err)
	}
	sealed = base64.RawURLEncoding.EncodeToString([]byte(p.box.Seal(string(raw), "Session", "provider", "flow")))
	return config.AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), sealed, nil
}

func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Person is who has signed in, as the provider knows him.
type Person struct {
	Issuer, Subject string
	// Name is what he is to be called here.
	Name string
	// Role is the highest that one of his groups has, "" where none has one.
	Role string
}

// Finish takes the provider's answer: the query that the browser came back with, and what it has kept. once says whether
// it is told of something for the first time.
func (p *Provider) Finish(
	ctx context.Context, query url.Values, sealed string, once func(context.Context, string) (bool, error),
) (Person, error) {
	var f flow
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return Person{}, ErrState
	}
	plain, err := p.box.Open(string(raw), "Session", "provider", "flow")
	if err != nil || json.Unmarshal([]byte(plain), &f) != nil || time.Since(f.At) > Lasts ||
		subtle.ConstantTimeCompare([]byte(f.State), []byte(query.Get("state"))) != 1 {
		return Person{}, ErrState
	}
	if iss := query.Get("iss"); iss != "" && iss != p.Issuer { // RFC 9207: the answer is another provider's
		return Person{}, fmt.Errorf("%w: it is from another provider", ErrToken)
	}
	switch first, err := once(ctx, f.State); {
	case err != nil:
		return Person{}, err
	case !first:
		return Person{}, ErrState
	}
	ctx = oidc.ClientContext(ctx, p.client)
	found, config, err := p.config(ctx)
	if err != nil {
		return Person{}, err
	}
	token, err := config.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(f.Verifier))
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused):
		return Person{}, fmt.Errorf("%w: the code is refused: %s", ErrToken, refused.ErrorCode)
	case err != nil:
		return Person{}, errors.Join(ErrUnavailable, err)
	}
	jwt, _ := token.Extra("id_token").(string)
	id, err := found.Verifier(&oidc.Config{ClientID: p.ClientID}).Verify(ctx, jwt)
	if err != nil {
		return Person{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.Nonce)) != 1 {
		return Person{}, fmt.Errorf("%w: its nonce is another one's", ErrToken)
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return Person{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if _, there := claims[p.Claim]; !there && found.UserInfoEndpoint() != "" {
		more, err := found.UserInfo(ctx, oauth2.StaticTokenSource(token))
		if err != nil {
			return Person{}, errors.Join(ErrUnavailable, err)
		}
		if more.Subject != id.Subject {
			return Person{}, fmt.Errorf("%w: it speaks of two people", ErrToken)
		}
		if err := more.Claims(&claims); err != nil { // beside those of the token
			return Person{}, fmt.Errorf("%w: %w", ErrToken, err)
		}
	}
	return Person{
		Issuer: id.Issuer, Subject: id.Subject, Name: nameOf(claims, id.Subject), Role: p.role(claims[p.Claim]),
	}, nil
}

// nameOf is what somebody is to be called here: as the provider does, if that can be a name.
func nameOf(claims map[string]any, subject string) string {
	for _, claim := range []string{"preferred_username", "email"} {
		if name, _ := claims[claim].(string); auth.CheckUserName(strings.ToLower(name)) == "" {
			return strings.ToLower(name)
		}
	}
	sum := sha256.Sum256([]byte(subject))
	return "user-" + hex.EncodeToString(sum[:4])
}

// role is the highest of the groups' roles. Groups are a list, or one.
func (p *Provider) role(groups any) (role string) {
	list, ok := groups.([]any)
	if !ok {
		list = []any{groups}
	}
	for _, g := range list {
		if name, ok := g.(string); ok {
			role = auth.Greater(role, p.Roles[name])
		}
	}
	return role
}
