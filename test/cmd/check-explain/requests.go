package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// request draws one for a configuration: mostly something that it speaks of, in odd spellings now and then.
func (c *configuration) request(d draws) api.ExplainRequest {
	r := api.ExplainRequest{
		Listener: pick(d, []string{"http", "http", "l3", "https"}), Method: d.method(), Host: c.host(d),
		Source: pick(d, []string{"127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.9"}),
	}
	r.Path = c.path(d) + c.query(d)
	r.Headers = c.headers(d)
	if r.Listener == "https" {
		r.ServerName = pick(d, []string{
			"a.example.com", "strict.example.com", "x.strict.example.com", "x.y.strict.example.com", "other.test",
		})
		if d.one(3) {
			r.Host = r.ServerName
		}
	}
	return r
}

func (d draws) method() string {
	if d.one(2) {
		return "GET"
	}
	return pick(d, []string{
		"POST", "OPTIONS", "HEAD", "PUT", "PURGE", "TRACE", "DELETE", "PATCH", "PROPFIND", "OPTIONS", "HEAD", "POST", "OPTIONS",
		"POST", "GET", pick(d, []string{"FOO", "M-SEARCH", "TRACE"}),
	})
}

func (c *configuration) host(d draws) string {
	host := pick(d, hosts)
	if len(c.routes) > 0 && !d.one(5) {
		if of := pick(d, c.routes).GetHosts(); len(of) > 0 {
			host = pick(d, of)
		}
	}
	if suffix, wild := strings.CutPrefix(host, "*"); wild && !d.one(40) {
		host = pick(d, []string{"x", "x.y", "X", "a", "b", "x_", "-", "x."}) + suffix
		if suffix == "" {
			host = pick(d, []string{"nobody.test", "a.b.c", "10.0.0.1", "[::1]", "localhost"})
		}
	}
	if !d.one(5) {
		return host
	}
	return pick(d, []string{
		host + ":80", host + ":8080", host + ".", host + ":", host + ".:80", host + ":+80", host + ":80:80", host + ":x",
		strings.ToUpper(host), strings.ToUpper(host[:1]) + host[1:], "x." + host, "." + host, host + "..", host + "%2e",
		host + "@b", "a@" + host, host + "/", host + ",b", host + ":4294967296", host + ":0", "*." + host, "[" + host + "]",
		host + "|*", host + "\\", host + "\"", host + "~", host + "[",
	})
}

func (c *configuration) path(d draws) string {
	path := pick(d, prefixes)
	switch {
	case len(c.gates) > 0 && d.one(8):
		path = pick(d, c.gates)
	case len(c.routes) > 0 && !d.one(4):
		switch m := pick(d, c.routes).GetPath().GetMatch().(type) {
		case *configv1.PathMatch_Exact:
			path = m.Exact
		case *configv1.PathMatch_Prefix:
			path = m.Prefix
		case *configv1.PathMatch_Regex:
			path = pick(d, []string{"/x", "/X", "/abc", "/abbc", "/a", "/1", "/12", "/a/b", "/.E", "/word", "/a%0a", "/~"})
		}
	}
	if p := c.policies[pick(d, []string{"staff", "partners", "p-3"})]; len(p.GetExemptPaths()) > 0 && d.one(4) {
		path = pick(d, p.GetExemptPaths()).GetPath()
	}
	if d.one(2) {
		path += pick(d, []string{"", "/", "/x", "x", "/a/b", "/a", "/b"})
	}
	if d.one(4) {
		path += pick(d, []string{
			"//", "/../", "/./", "/.", "/..", "%2e", "/%2e%2e/x", "%2F", "%5c", "\\", ";a=b", "%7e", "%41", "%zz", "%", "/..%2f",
			"#f", "{", "|", "\"", "^", "<", "`", "/a%2Fb", "%00", "%25", "/.;/", "/x/../y", "/%2E/", "'", "(", "[", "@", "+", "=",
			"%c3%a4", "%2f..%2f", "%20", "*", "/a/./b/../c//d", "%2e%2e", "..", "/...", "%252e",
		})
	}
	var out strings.Builder
	for _, b := range []byte(path) {
		if b <= ' ' || b >= 0x7f {
			fmt.Fprintf(&out, "%%%02X", b)
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}

func (c *configuration) query(d draws) string {
	if d.one(2) {
		return ""
	}
	var parts []string
	for range d.IntN(3) {
		parts = append(parts, pick(d, []string{"q", "q=v", "q=", "x=1", "", "=", "q=v=w", "a%20b=v", "q=%76", "Q=v", "q=/../x"}))
	}
	for range d.IntN(2) {
		if len(c.routes) == 0 {
			break
		}
		for _, q := range pick(d, c.routes).GetQuery() {
			parts = append(parts, q.GetName()+"="+d.value(q.GetValue()))
		}
	}
	raw := "?" + strings.Join(parts, "&")
	var out strings.Builder
	for _, b := range []byte(raw) {
		if b > ' ' && b < 0x7f {
			out.WriteByte(b)
		}
	}
	return out.String()
}

// value is one that matches, or one that does not.
func (d draws) value(m *configv1.StringMatch) string {
	if d.one(4) {
		return pick(d, []string{"v", "w", "", "vv"})
	}
	switch m := m.GetMatch().(type) {
	case *configv1.StringMatch_Exact:
		return m.Exact
	case *configv1.StringMatch_Prefix:
		return m.Prefix + "x"
	case *configv1.StringMatch_Suffix:
		return "x" + m.Suffix
	case *configv1.StringMatch_Regex:
		return pick(d, []string{"/x", "/abc", "a", "b", "", "/1", "/a"})
	}
	return "v"
}

// never are headers that this program sets itself, or that carry a message.
var never = []string{
	"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive", "expect",
	"proxy-connection", "http2-settings", "authorization",
}

var fieldName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (c *configuration) headers(d draws) []api.HeaderField {
	var out []api.HeaderField
	add := func(name, value string) {
		name = strings.TrimPrefix(name, ":")
		if slices.Contains(never, strings.ToLower(name)) || !fieldName.MatchString(name) ||
			strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return
		}
		out = append(out, api.HeaderField{Name: name, Value: value})
	}
	for range d.IntN(3) {
		if len(c.routes) == 0 {
			break
		}
		for _, h := range pick(d, c.routes).GetHeaders() {
			add(h.GetName(), d.value(h.GetValue()))
		}
	}
	if d.one(4) {
		add(pick(d, []string{"x-a", "X-B", "x-b", "cookie", "x-envoy-retry-on", "x_under", "x-license-key", "X_License_Key"}),
			pick(d, []string{"v", "", "é", "w", "5xx", " v "}))
	}
	if d.one(6) {
		add("x-forwarded-for", "192.0.2.1")
		add("x-forwarded-proto", "https")
	}
	if d.one(25) {
		add("content-type", pick(d, []string{"application/grpc", "application/grpc+proto", "application/grpc-web", "text/plain"}))
	}
	if d.one(4) {
		add("origin", c.origin(d))
		if d.one(2) {
			add("access-control-request-method", "PUT")
		}
	}
	if d.one(2) {
		out = append(out, api.HeaderField{Name: pick(d, []string{"authorization", "Authorization"}), Value: c.credentials(d)})
		if d.one(20) {
			out = append(out, api.HeaderField{Name: "authorization", Value: c.credentials(d)})
		}
	}
	return out
}

func (c *configuration) origin(d draws) string {
	for _, r := range c.routes {
		if o := r.GetCors().GetAllowOrigins(); len(o) > 0 && d.one(2) {
			if v := d.value(pick(d, o)); strings.TrimSpace(v) == v {
				return v
			}
		}
	}
	return "https://shop.example.com"
}

// credentials are some that a policy takes, or that are nearly so.
func (c *configuration) credentials(d draws) string {
	scheme := "Bearer "
	if d.one(10) {
		scheme = pick(d, []string{"bearer ", "Bearer  ", "Basic ", "Bearer", "", "Bearer x "})
	}
	if d.one(3) {
		return scheme + pick(d, append([]string{"", "x", "a.b.c", "AAAA"}, opaque...))
	}
	p := c.policies[pick(d, []string{"staff", "partners", "p-3"})]
	header, claims := map[string]any{"alg": "HS256", "typ": "JWT"}, map[string]any{"exp": time.Now().Unix() + 3600}
	if keys := p.GetJwt().GetKeys(); len(keys) > 0 {
		k := pick(d, keys)
		if header["alg"] = k.GetAlgorithm().String(); !d.one(4) {
			header["kid"] = k.GetKid()
		}
	}
	if i := p.GetJwt().GetIssuers(); len(i) > 0 {
		claims["iss"] = pick(d, i)
	}
	if a := p.GetJwt().GetAudiences(); len(a) > 0 {
		claims["aud"] = pick(d, a)
	}
	for _, r := range p.GetJwt().GetRequiredClaims() {
		if at := r.GetClaim(); len(at) == 1 && claims[at[0]] == nil {
			claims[at[0]] = "x"
			if len(r.GetValues()) > 0 {
				claims[at[0]] = pick(d, r.GetValues())
			}
		}
	}
	switch {
	case d.one(10):
		claims["exp"] = time.Now().Unix() - 3600
	case d.one(10):
		claims["nbf"] = time.Now().Unix() + 3600
	case d.one(10):
		delete(claims, "exp")
	case d.one(10):
		claims["aud"] = "nobody"
	}
	token := sign(header, claims)
	if d.one(12) {
		token = token[:len(token)-2] + "AA"
	}
	return scheme + token
}

func sign(header, claims map[string]any) string {
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err) // maps of texts and numbers
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	hashes := map[any]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New}
	of := hashes[header["alg"]]
	if of == nil {
		of = sha256.New
	}
	signed := part(header) + "." + part(claims)
	mac := hmac.New(of, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// text is a request as it goes over the wire.
func text(r api.ExplainRequest) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.Method, r.Path, r.Host)
	for _, h := range r.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
	}
	if r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		b.WriteString("Content-Length: 0\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}
