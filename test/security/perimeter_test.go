package security

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

const (
	perimeterToken  = "a-token-of-the-perimeter"
	perimeterSecret = "a-secret-of-the-perimeter-0123456789"
)

// perimeter is a system with hosts that demand something, a default route that demands nothing, and a backend that
// serves whatever host it believes to be asked for. Its doors are ways in.
type perimeter struct {
	t *testing.T
	s *harness.System
	// doors are without, withCertificate with a client certificate, each made for the host that it names.
	doors, withCertificate []door
}

type door struct {
	name, addr string
	http2, tls bool
	config     *tls.Config
	host, ca   string
}

func (d door) scheme() string {
	if d.tls {
		return "https"
	}
	return "http"
}

// answer is what came back; status 0 is a connection or a stream that was ended.
type answer struct {
	status int
	seen   http.Header // the answer's, with what the backend saw
}

func newPerimeter(t *testing.T) *perimeter {
	t.Helper()
	s := harness.ForTest(t, nil, "--no-demo")
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Seen-Host", believed(r.Host))
		w.Header().Set("Seen-Path", r.RequestURI)
		w.Header().Set("Seen-Scope", r.Header.Get("x-marchproxy-scope"))
		for name, values := range r.Header { // as a CGI server has them
			if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), "x-user") {
				w.Header().Add("Seen-User", strings.Join(values, ","))
			}
		}
	}))
	t.Cleanup(backend.Close)
	port, err := strconv.Atoi(backend.URL[strings.LastIndexByte(backend.URL, ':')+1:])
	if err != nil {
		t.Fatal(err)
	}
	rest := "PENG-TEST-TEST-TEST-0001"
	sum := sha256.Sum256([]byte(perimeterToken))
	own, other := newCA(t, "own"), newCA(t, "other")
	serverNames := []string{"plain.example.com", "mtls.example.com", "*.strict.example.com"}
	chain, key := own.issue(t, serverNames...)
	type object = map[string]any
	web := []object{{"service": "web"}}
	route := func(name string, spec object, hosts ...string) object {
		if spec["redirect"] == nil {
			spec["backends"] = web
		}
		spec["hosts"] = hosts
		return object{"kind": "Route", "name": name, "spec": spec}
	}
	status, raw, err := s.Call(t.Context(), "GET", s.API+"/v1/gateways/default", nil)
	if err != nil || status != 200 {
		t.Fatal(status, err)
	}
	p := &perimeter{t: t, s: s}
	p.apply(object{
		"kind": "Service", "name": "web",
		"spec": object{"endpoints": []object{{"host": "127.0.0.1", "port": port}}},
	},
		object{"kind": "Certificate", "name": "server", "spec": object{"chain": chain, "private_key": key}},
		object{"kind": "Certificate", "name": "own", "spec": object{"chain": own.PEM}},
		object{"kind": "Certificate", "name": "other", "spec": object{"chain": other.PEM}},
		object{"kind": "License", "name": "l", "spec": object{
			"key":   rest + "-" + license.Checksum(rest),
			"gates": []object{{"feature": "multi-cloud", "paths": []string{"/gated"}}},
		}},
		object{
			"kind": "AuthPolicy", "name": "staff",
			"spec": object{"tokens": []object{{"name": "t", "sha256": hex.EncodeToString(sum[:])}}},
		},
		object{"kind": "AuthPolicy", "name": "claims", "spec": object{"jwt": object{
			"keys":           []object{{"kid": "k", "algorithm": "HS256", "secret": perimeterSecret}},
			"forward_claims": []object{{"claim": []string{"sub"}, "header": "x-user"}},
		}}},
		object{"kind": "AuthPolicy", "name": "exempt", "spec": object{
			"tokens":       []object{{"name": "t", "sha256": hex.EncodeToString(sum[:])}},
			"exempt_paths": []object{{"path": "/open", "prefix": true}},
		}},
		object{"kind": "Gateway", "name": "default", "spec": object{
			"license": "l", "api_keys": apiKeys(t, raw), "listeners": []object{
				{"name": "http", "port": s.ProxyPort},
				{
					"name": "https", "port": ports[0], "protocol": "https", "certificates": []string{"server"},
					"client_auth": []object{
						{"hosts": []string{"mtls.example.com", "open.strict.example.com"}, "ca_certificate": "own"},
						{"hosts": []string{"*.strict.example.com"}, "ca_certificate": "other"},
					},
				},
			},
		}},
		route("admin", object{"auth_policy": "staff"}, "admin.example.com", "*.wild.example.com"),
		route("gated", object{"features": []string{"numa"}}, "gated.example.com"),
		route("mtls", object{}, "mtls.example.com"),
		route("strict", object{}, "x.strict.example.com"),
		route("redirected", object{"redirect": object{"scheme": "https", "status": 308}}, "redirect.strict.example.com"),
		route("paths", object{}, "paths.example.com"),
		route("paths-admin", object{"path": object{"prefix": "/admin"}, "auth_policy": "staff"}, "paths.example.com"),
		route("exempt", object{"auth_policy": "exempt"}, "exempt.example.com"),
		route("claims", object{"auth_policy": "claims"}, "claims.example.com"),
		route("open", object{}, "open.example.com"),
		route("default", object{}, "*"),
	)
	secure := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	roots := x509.NewCertPool()
	roots.AddCert(own.Cert)
	client := func(ca *ca, name string, http2 bool) *tls.Config {
		c := &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
		if http2 {
			c.NextProtos = []string{"h2"}
		}
		if ca != nil {
			chain, key := ca.issue(t, "client")
			pair, err := tls.X509KeyPair([]byte(chain), []byte(key))
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		return c
	}
	for _, http2 := range []bool{false, true} {
		version := map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[http2]
		p.doors = append(
			p.doors, door{name: version, addr: s.Proxy, http2: http2},
			door{
				name: version + " over TLS", addr: secure, http2: http2, tls: true,
				config: client(nil, "plain.example.com", http2),
			},
		)
		for host, ca := range map[string]*ca{
			"mtls.example.com": own, "x.strict.example.com": other,
			"open.strict.example.com": own,
		} {
			p.withCertificate = append(p.withCertificate, door{
				name: version + " with a certificate for " + host, addr: secure, http2: http2, tls: true,
				config: client(ca, host, http2), host: host, ca: ca.name,
			})
		}
	}
	return p
}

// believed is the host that a lenient backend serves: the first of several, without userinfo, port, final dots and
// brackets, escapes undone.
func believed(host string) string {
	host, _, _ = strings.Cut(host, ",")
	if _, after, ok := strings.Cut(host, "@"); ok {
		host = after
	}
	if !strings.HasPrefix(host, "[:") && !strings.HasPrefix(host, "[2") {
		host, _, _ = strings.Cut(host, ":")
		host = strings.Trim(host, "[]")
	}
	return strings.Trim(strings.ToLower(unescaped(host)), ". ")
}

// apiKeys are the keys of a gateway as it was read.
func apiKeys(t *testing.T, gateway []byte) any {
	t.Helper()
	var g struct {
		Spec struct {
			Keys []any `json:"api_keys"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(gateway, &g); err != nil {
		t.Fatal(err)
	}
	return g.Spec.Keys
}

func (p *perimeter) apply(resources ...map[string]any) {
	p.t.Helper()
	status, raw, err := p.s.Call(p.t.Context(), "POST", p.s.API+"/v1/apply?wait=live",
		map[string]any{"resources": resources})
	if err != nil || status != 200 || !strings.Contains(string(raw), `"state":"live"`) {
		p.t.Fatalf("apply: %d %s %v", status, raw, err)
	}
}

// want asks for a host and path; 400 is also what an ended connection or stream is.
func (p *perimeter) want(d door, host, path string, status int) {
	p.t.Helper()
	got := p.ask(d, host, path)
	if got.status != status && (status != 400 || got.status != 0) {
		p.t.Errorf("%s, host %q, path %q: %d, want %d; the backend saw %q", d.name, host, path, got.status, status,
			got.seen.Get("Seen-Host"))
	}
}

// harmless says that a request was not served for a protected host.
func (p *perimeter) harmless(d door, what string, got answer) {
	p.t.Helper()
	if host := got.seen.Get("Seen-Host"); host == "admin.example.com" || host == "mtls.example.com" ||
		got.status/100 == 5 {
		p.t.Errorf("%s, %s: %d, the backend saw %q", d.name, what, got.status, host)
	}
}

// ask sends a request byte by byte, whatever its host and path are; headers are pairs.
func (p *perimeter) ask(d door, host, path string, headers ...string) answer {
	p.t.Helper()
	if d.http2 {
		fields := [][2]string{{":method", "GET"}, {":scheme", d.scheme()}, {":path", path}, {":authority", host}}
		for pair := range slices.Chunk(headers, 2) {
			fields = append(fields, [2]string{pair[0], pair[1]})
		}
		return p.h2(d, fields)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", path, host)
	for pair := range slices.Chunk(headers, 2) {
		fmt.Fprintf(&b, "%s: %s\r\n", pair[0], pair[1])
	}
	return p.h1(d, b.String()+"Connection: close\r\n\r\n")
}

func (p *perimeter) dial(d door) net.Conn {
	p.t.Helper()
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	var c net.Conn
	var err error
	if d.tls {
		c, err = (&tls.Dialer{NetDialer: dialer, Config: d.config}).DialContext(p.t.Context(), "tcp", d.addr)
	} else {
		c, err = dialer.DialContext(p.t.Context(), "tcp", d.addr)
	}
	if err == nil {
		err = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	if err != nil {
		p.t.Fatalf("%s: %v", d.name, err)
	}
	return c
}

// h1 sends bytes and reads one answer.
func (p *perimeter) h1(d door, request string) answer {
	p.t.Helper()
	c := p.dial(d)
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, request); err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			p.t.Errorf("%s: no answer to %q", d.name, request)
		}
		return answer{}
	}
	defer func() { _ = resp.Body.Close() }()
	return answer{resp.StatusCode, resp.Header}
}

// h2 sends header fields as they are and reads one answer.
func (p *perimeter) h2(d door, fields [][2]string) answer {
	p.t.Helper()
	c := p.dial(d)
	defer func() { _ = c.Close() }()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			p.t.Fatal(err)
		}
	}
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err := io.WriteString(c, http2.ClientPreface)
	if err == nil {
		err = errors.Join(fr.WriteSettings(), fr.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true,
		}))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				p.t.Errorf("%s: no answer to %q", d.name, fields)
			}
			return answer{}
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			a := answer{seen: http.Header{}}
			for _, h := range f.Fields {
				if h.Name == ":status" {
					a.status, err = strconv.Atoi(h.Value)
				} else {
					a.seen.Add(h.Name, h.Value)
				}
			}
			if err != nil {
				p.t.Fatal(err)
			}
			return a
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return answer{}
		}
	}
}
