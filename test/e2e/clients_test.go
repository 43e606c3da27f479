package e2e

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/harness"
)

// Who the tests are at the proxy: clients with tokens, certificates and keys.

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
	if _, err := fmt.Fprintf(v.c, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, path, v.host,
		strings.Join(append(headers, ""), "\r\n")); err != nil {
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

func visit(t *testing.T, s *harness.System, host string) *visitor {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &visitor{t, c, bufio.NewReader(c), host}
}

// keys are the keys of the gateway default: what another gateway needs to be open to the same Envoys.
func keys(t *testing.T, s *harness.System) any {
	t.Helper()
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	return []any{map[string]any{"name": "bootstrap", "key": key}}
}

func licenseKey() string {
	const rest = "PENG-TEST-TEST-TEST-0001"
	return rest + "-" + license.Checksum(rest)
}

func signers(t *testing.T) []signer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return []signer{{"r", jwt.SigningMethodRS256, r}, {"e", jwt.SigningMethodES256, e}, {"d", jwt.SigningMethodEdDSA, d}}
}

// signer is an asymmetric key.
type signer struct {
	kid    string
	method jwt.SigningMethod
	key    crypto.Signer
}

func (s signer) token(t *testing.T, changes jwt.MapClaims) string {
	t.Helper()
	claims := jwt.MapClaims{
		"iss": "joe", "aud": "shop", "sub": "ann", "exp": time.Now().Add(5 * time.Minute).Unix(),
		"realm_access": map[string]any{"roles": []string{"user", "admin"}}, "scope": "read write",
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	token := jwt.NewWithClaims(s.method, claims)
	token.Header["kid"] = s.kid
	text, err := token.SignedString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (s signer) pem(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// keyServer is an identity provider that publishes keys under /keys, to whoever asks for id.test.
func keyServer(t *testing.T, keys ...signer) (port string) {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, x := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: x.key.Public(), KeyID: x.kid, Algorithm: x.method.Alg(), Use: "sig"})
	}
	var fetched atomic.Int32
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" || r.Host != "id.test" {
			http.Error(w, "not here", http.StatusNotFound)
			return
		}
		fetched.Add(1)
		_ = json.NewEncoder(w).Encode(set) // the client is gone: nobody is left to tell
	}))
	t.Cleanup(func() {
		idp.Close()
		if fetched.Load() == 0 {
			t.Error("the key set was not fetched")
		}
	})
	return idp.URL[strings.LastIndexByte(idp.URL, ':')+1:]
}

// ownAuthority is a certificate authority of the test's own, for an hour.
type ownAuthority struct{ *authority.Authority }

func (a *ownAuthority) issue(t *testing.T, names ...string) (chain, key string) {
	t.Helper()
	return a.until(t, time.Now().Add(time.Hour), names...)
}

// until issues a certificate that ends at a time.
func (a *ownAuthority) until(t *testing.T, end time.Time, names ...string) (chain, key string) {
	t.Helper()
	chain, key, err := a.Issue(authority.Server(time.Until(end), names...))
	if err != nil {
		t.Fatal(err)
	}
	return chain, key
}

func newAuthority(t *testing.T) *ownAuthority {
	t.Helper()
	a, err := authority.New("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &ownAuthority{a}
}

// browser is an HTTP/2 client that, as browsers do, uses one connection for every host; sni is the name
// that it makes the connection for.
func browser(a *ownAuthority, sni string, cert *tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(a.Cert)
	cfg := &tls.Config{RootCAs: roots, ServerName: sni, MinVersion: tls.VersionTLS12}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   cfg,
		ForceAttemptHTTP2: true,
	}}
}

func fetch(
	t *testing.T, c *http.Client, port, host string,
) (status int, body, serial string, reused bool, proto string) {
	t.Helper()
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet,
		"https://"+net.JoinHostPort("127.0.0.1", port)+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.TLS.PeerCertificates[0].Subject.CommonName, reused, resp.Proto
}
