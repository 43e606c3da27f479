package security

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// canonicalForms are ways to write a host that are the host itself, a port with a plus among them, which Envoy takes
// off before anything of ours could see it; oddForms are none, and must be refused before a route is looked for. HOST
// stands for the host, MIXED for it in upper case.
var (
	canonicalForms = []string{
		"HOST", "MIXED", "HOST:80", "HOST:443", "HOST:0", "HOST:65535", "HOST:00080", "HOST.", "MIXED.",
		"HOST.:80", "MIXED:80",
		"HOST:+80", "MIXED:+443", "HOST.:+0",
	}
	oddForms = []string{
		"HOST:", "HOST:abc", "HOST:80abc", "HOST:0x50", "HOST:-1", "HOST:-0", "HOST:+", "HOST:++80", "HOST:+-80", "HOST:80+",
		"HOST:8 0", "HOST:4294967296", "HOST::80", "HOST:80:80", "HOST:80,",
		"HOST..", "HOST..:80", "HOST.:", ".HOST", "..HOST", "x..HOST", "HOST,", "HOST,other.test", "other.test,HOST",
		"HOST, HOST",
		"user@HOST", "user:password@HOST", "HOST@other.test", "HOST/", "HOST/x", "HOST?x", "HOST#x", `HOST\`,
		"HOST%2e", "%61HOST",
		"HOST%00", "HOST\x00", "HOST\x01", "HOST\x7f", "HOST\xff", "ａHOST", "HOST;x", "HOST&x", "HOST=", "HOST'", "HOST\"",
		"(HOST)", "*",
		"[HOST]", "[HOST", "HOST]", "[::1]x", "[::1%25HOST]", "HOST!", "HOST~", "$HOST", "HOST+", "HOST|x",
		"http://HOST", "", " ",
	}
	// spaces around a value are not part of it in HTTP/1.1 and not allowed in HTTP/2.
	paddedForms = []string{" HOST", "HOST ", "HOST\t", "\tHOST"}
)

func form(text, host string) string {
	return strings.NewReplacer("HOST", host, "MIXED", strings.ToUpper(host)).Replace(text)
}

// TestHosts: however a request spells its host, it meets what the host demands (a policy, a feature, a client
// certificate), or is refused. The backend serves whatever host it believes to be asked for, as lenient as backends
// are, and must never believe in a protected one.
func TestHosts(t *testing.T) {
	p := newPerimeter(t)
	protected := map[string]int{ // what a request without any right to it is answered
		"admin.example.com": 401, "x.wild.example.com": 401, "a.b.wild.example.com": 401, "gated.example.com": 402,
		"mtls.example.com": 421, "x.strict.example.com": 421, "open.strict.example.com": 421,
	}
	for _, d := range p.doors {
		for host, want := range protected {
			for _, f := range canonicalForms {
				p.want(d, form(f, host), "/", want)
			}
			for _, f := range oddForms {
				p.want(d, form(f, host), "/", 400)
			}
			for _, f := range paddedForms {
				if d.http2 {
					p.want(d, form(f, host), "/", 400)
				} else {
					p.want(d, form(f, host), "/", want)
				}
			}
		}
		for _, host := range []string{
			"other.test", "example.com", "wild.example.com", "[::1]", "[2001:DB8::1]:80",
			"127.0.0.1", "a_b.test",
		} {
			p.want(d, host, "/", 200)
		}
	}
}

// TestHostsWithRights: what is allowed to reach a host reaches it by every spelling that is the host, and the backend
// sees the host that was asked for.
func TestHostsWithRights(t *testing.T) {
	p := newPerimeter(t)
	for _, d := range p.doors {
		for _, f := range canonicalForms {
			got := p.ask(d, form(f, "admin.example.com"), "/", "authorization", "Bearer "+perimeterToken)
			if got.status != 200 || !strings.EqualFold(got.seen.Get("Seen-Host"), "admin.example.com") {
				t.Errorf("%s, %q with a token: %d, the backend saw %q", d.name, f, got.status, got.seen.Get("Seen-Host"))
			}
		}
	}
	for _, d := range p.withCertificate {
		for _, f := range canonicalForms {
			p.want(d, form(f, d.host), "/", 200)
		}
		for _, f := range oddForms {
			p.want(d, form(f, d.host), "/", 400)
		}
		for _, other := range p.withCertificate {
			// A certificate of one authority does not open a host that demands another's.
			if want := map[bool]int{true: 200, false: 421}[other.ca == d.ca]; other.host != d.host {
				p.want(d, other.host, "/", want)
			}
		}
		p.want(d, "admin.example.com", "/", 401)
	}
}

// TestMisdirectedHosts: a listener that does not demand a host's client certificate serves it nothing, by no route,
// wildcard or default, but a redirect to the one that does.
func TestMisdirectedHosts(t *testing.T) {
	p := newPerimeter(t)
	for _, d := range p.doors {
		p.want(d, "mtls.example.com", "/nowhere", 421)
		p.want(d, "unrouted.strict.example.com", "/", 421) // has no route but the default's
		want := 421
		if !d.tls {
			want = 308
		}
		p.want(d, "redirect.strict.example.com", "/", want)
	}
}

// TestTwoHosts: two hosts in one request are none, by whatever two fields.
func TestTwoHosts(t *testing.T) {
	p := newPerimeter(t)
	for _, hosts := range [][2]string{
		{"admin.example.com", "other.test"},
		{"other.test", "admin.example.com"},
		{"admin.example.com", "admin.example.com"},
		{"mtls.example.com", "other.test"},
		{"other.test", "mtls.example.com"},
	} {
		for _, d := range p.doors {
			if d.http2 {
				got := p.h2(d, [][2]string{
					{":method", "GET"},
					{":scheme", d.scheme()},
					{":path", "/"},
					{":authority", hosts[0]},
					{"host", hosts[1]},
				})
				p.harmless(d, fmt.Sprint(hosts), got)
				got = p.h2(d, [][2]string{
					{":method", "GET"},
					{":scheme", d.scheme()},
					{":path", "/"},
					{":authority", hosts[0]},
					{":authority", hosts[1]},
				})
				p.harmless(d, fmt.Sprint(hosts), got)
				got = p.h2(d, [][2]string{
					{":method", "GET"},
					{":scheme", d.scheme()},
					{":path", "/"},
					{"host", hosts[0]},
					{"host", hosts[1]},
				})
				p.harmless(d, fmt.Sprint(hosts), got)
				continue
			}
			got := p.h1(d, "GET / HTTP/1.1\r\nHost: "+hosts[0]+"\r\nHost: "+hosts[1]+"\r\nConnection: close\r\n\r\n")
			if got.status != 400 {
				t.Errorf("%s: two Host fields %q: %d, want 400", d.name, hosts, got.status)
			}
			// RFC 9112, 3.2.2: the target counts and Host is ignored.
			got = p.h1(d, "GET "+d.scheme()+"://"+hosts[0]+"/ HTTP/1.1\r\nHost: "+hosts[1]+"\r\nConnection: close\r\n\r\n")
			p.harmless(d, fmt.Sprint(hosts), got)
		}
	}
}

// TestScopeHeader: the header by which a listener finds the routes of a host is the proxy's alone. What a client sends
// under its name leads to no other host, and no backend sees it.
func TestScopeHeader(t *testing.T) {
	p := newPerimeter(t)
	const name = "x-marchproxy-scope"
	for _, d := range p.doors {
		for _, scope := range []string{
			"http|admin.example.com", "http|other.test", "http|*", "https|*", "https|mtls.example.com",
			"https|x.strict.example.com",
			"*", "", "|", "open.example.com",
		} {
			for _, header := range []string{name, strings.ToUpper(name), "x_marchproxy_scope"} {
				if d.http2 {
					header = strings.ToLower(header)
				}
				for host, want := range map[string]int{
					"admin.example.com": 401, "mtls.example.com": 421, "x.strict.example.com": 421, "gated.example.com": 402,
					"other.test": 200,
				} {
					got := p.ask(d, host, "/", header, scope, header, "http|other.test")
					if got.status != want || want == 200 && got.seen.Get("Seen-Host") != host || got.seen.Get("Seen-Scope") != "" {
						t.Errorf("%s, %s with %s: %s: %d, want %d; the backend saw %v", d.name, host, header, scope, got.status,
							want, got.seen)
					}
				}
			}
		}
	}
	status, raw, err := p.s.Call(t.Context(), http.MethodPut, p.s.API+"/v1/routes/scope", `{"spec":{"hosts":["scope.test"],
		"request_headers":{"set":[{"name":"X-Marchproxy-Scope","value":"http|*"}]},"backends":[{"service":"web"}]}}`)
	if err != nil || status != 422 || !strings.Contains(string(raw), "$.spec.request_headers.set[0].name") {
		t.Errorf("a route that sets it: %d %s %v", status, raw, err)
	}
}

// TestTrace: TRACE is refused whatever the route says, in any case.
func TestTrace(t *testing.T) {
	p := newPerimeter(t)
	for _, d := range p.doors {
		for _, host := range []string{"other.test", "open.example.com", "Open.Example.Com"} {
			for _, method := range []string{"TRACE", "trace", "Trace"} {
				var got answer
				if d.http2 {
					got = p.h2(d, [][2]string{{":method", method}, {":scheme", d.scheme()}, {":path", "/"}, {":authority", host}})
				} else {
					got = p.h1(d, method+" / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
				}
				if got.status != 405 && got.status != 400 || method == "TRACE" && got.status != 405 {
					t.Errorf("%s: %s of %s: %d, want 405", d.name, method, host, got.status)
				}
			}
		}
	}
}

// TestForgedClaims: no client brings the header that a claim is forwarded in, in any spelling that a server behind may
// take for it, on no route of the gateway.
func TestForgedClaims(t *testing.T) {
	p := newPerimeter(t)
	token := jwt.NewWithClaims(jwt.SigningMethodHS256,
		jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()})
	token.Header["kid"] = "k"
	signed, err := token.SignedString([]byte(perimeterSecret))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range p.doors {
		for _, name := range []string{"x-user", "x_user", "X_User", "X-USER", "x_USER"} {
			if d.http2 {
				name = strings.ToLower(name)
			}
			got := p.ask(d, "claims.example.com", "/", "authorization", "Bearer "+signed, name, "mallory")
			if got.status != 200 || strings.Join(got.seen.Values("Seen-User"), ",") != "alice" {
				t.Errorf("%s with %s: %d, the backend took the user for %q", d.name, name, got.status, got.seen.Values("Seen-User"))
			}
			for _, host := range []string{"other.test", "open.example.com", "x.example.com"} {
				if got := p.ask(d, host, "/", name, "mallory"); got.status != 200 || got.seen.Get("Seen-User") != "" {
					t.Errorf("%s, %s with %s: %d, the backend took the user for %q", d.name, host, name, got.status,
						got.seen.Values("Seen-User"))
				}
			}
		}
	}
}

// TestFramingHeaders: no route and no claim sets or removes what frames a message or belongs to one connection.
func TestFramingHeaders(t *testing.T) {
	p := newPerimeter(t)
	for _, name := range []string{
		"content-length", "Content-Length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive",
		"proxy-connection",
		"http2-settings", "host", ":authority", ":path",
	} {
		for field, spec := range map[string]string{
			"request_headers.set[0].name": `"request_headers":{"set":[{"name":%q,"value":"1"}]},` +
				`"backends":[{"service":"web"}]`,
			"request_headers.add[0].name": `"request_headers":{"add":[{"name":%q,"value":"1"}]},` +
				`"backends":[{"service":"web"}]`,
			"request_headers.remove[0]": `"request_headers":{"remove":[%q]},"backends":[{"service":"web"}]`,
			"response_headers.set[0].name": `"response_headers":{"set":[{"name":%q,"value":"1"}]},` +
				`"backends":[{"service":"web"}]`,
			"response_headers.add[0].name": `"response_headers":{"add":[{"name":%q,"value":"1"}]},` +
				`"direct_response":{"status":200}`,
			"response_headers.remove[0]": `"response_headers":{"remove":[%q]},"redirect":{"scheme":"https"}`,
			"backends[0].request_headers.set[0].name": `"backends":[{"service":"web","request_headers":{"set":[{"name":%q,` +
				`"value":"1"}]}}]`,
		} {
			status, raw, err := p.s.Call(t.Context(), http.MethodPut, p.s.API+"/v1/routes/framing",
				fmt.Sprintf(`{"spec":{"hosts":["framing.test"],`+spec+`}}`, name))
			if err != nil || status != 422 && status != 400 || !strings.Contains(string(raw), "$.spec."+field) {
				t.Errorf("%s of %q: %d %s %v, want a refusal that names the field", field, name, status, raw, err)
			}
		}
		status, raw, err := p.s.Call(t.Context(), http.MethodPut, p.s.API+
			"/v1/auth-policies/framing", fmt.Sprintf(`{"spec":{"jwt":{"keys":[{"kid":"k","algorithm":"HS256",
			"secret":"0123456789abcdef0123456789abcdef"}],"forward_claims":[{"claim":["sub"],"header":%q}]}}}`,
			strings.ToLower(name)))
		if err != nil || status/100 != 4 || !strings.Contains(string(raw), "forward_claims[0].header") {
			t.Errorf("forward_claims to %q: %d %s %v, want a refusal that names the field", name, status, raw, err)
		}
	}
}
