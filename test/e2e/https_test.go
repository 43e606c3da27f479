package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// TestHTTPS: certificates by server name, one HTTP/2 connection for several hosts, hosts that demand a
// client certificate, and a certificate renewed without a connection lost.
func TestHTTPS(t *testing.T) {
	s := start(t, "--no-demo")
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthority(t)
	certificate := func(name string, hosts ...string) map[string]any {
		chain, key := a.issue(t, hosts...)
		return map[string]any{"kind": "Certificate", "name": name, "spec": map[string]any{"chain": chain, "private_key": key}}
	}
	chain, key := a.issue(t, "client")
	client, err := tls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	gateway := map[string]any{"kind": "Gateway", "name": "default", "spec": map[string]any{"api_keys": keys(t,
		s), "listeners": []any{
		map[string]any{"name": "http", "port": s.ProxyPort},
		map[string]any{
			"name": "https", "port": ports[0], "protocol": "https", "certificates": []string{"main", "other"},
			"client_auth": []any{map[string]any{"hosts": []string{"strict.example.com"}, "ca_certificate": "ca"}},
		},
	}}}
	call(t, s, "POST", s.API+"/v1/apply?wait=live", map[string]any{"resources": []any{
		certificate("main", "a.example.com", "b.example.com", "strict.example.com"), certificate("other", "other.test"),
		map[string]any{"kind": "Certificate", "name": "ca", "spec": map[string]any{"chain": a.PEM}},
		gateway,
		direct("a", "a", nil), direct("b", "b", nil), direct("strict", "strict", nil),
		direct("other", "other", map[string]any{"hosts": []string{"other.test"}}),
	}}, 200)
	port := big.NewInt(int64(ports[0])).String()

	one := browser(a, "a.example.com", nil)
	for i, host := range []string{"a", "b"} {
		status, body, cn, reused, proto := fetch(t, one, port, host+".example.com")
		if status != 200 || body != host || cn != "a.example.com" || proto != "HTTP/2.0" || reused != (i == 1) {
			t.Fatalf("%s: %d %q certificate %s reused %t %s", host, status, body, cn, reused, proto)
		}
	}
	// Under another server name the strict host must not be served, whatever the connection is good for.
	if status, body, _, _, _ := fetch(t, one, port, "strict.example.com"); status != 421 {
		t.Fatalf("strict host on another's connection: %d %q", status, body)
	}
	if status, body, cn, _, _ := fetch(t, browser(a, "other.test", nil), port, "other.test"); status != 200 ||
		body != "other" || cn != "other.test" {
		t.Fatalf("other.test: %d %q certificate %s", status, body, cn)
	}
	if status, body, _, _, _ := fetch(t, browser(a, "strict.example.com", &client), port,
		"strict.example.com"); status != 200 || body != "strict" {
		t.Fatalf("strict host with a client certificate: %d %q", status, body)
	}
	without := browser(a, "strict.example.com", nil)
	if resp, err := without.Get("https://127.0.0.1:" + port + "/"); err == nil {
		_ = resp.Body.Close()
		t.Fatalf("strict host without a client certificate: %d", resp.StatusCode)
	}
	// Mixed case still finds its table where the listener has strict hosts.
	if status, body, _, _, _ := fetch(t, one, port, "B.Example.Com"); status != 200 || body != "b" {
		t.Fatalf("mixed case: %d %q", status, body)
	}

	// A new certificate: connections stay, new ones get it.
	renewed := certificate("main", "renewed.example.com", "a.example.com")
	call(t, s, "PUT", s.API+"/v1/certificates/main?wait=live", map[string]any{"spec": renewed["spec"]}, 200)
	if _, _, _, reused, _ := fetch(t, one, port, "a.example.com"); !reused {
		t.Error("the connection was lost when the certificate changed")
	}
	if _, _, cn, _, _ := fetch(t, browser(a, "a.example.com", nil), port, "a.example.com"); cn != "renewed.example.com" {
		t.Errorf("a new connection gets the certificate of %s", cn)
	}
	// The key is never shown, and what was read can be written back.
	got := call(t, s, "GET", s.API+"/v1/certificates/main", nil, 200)
	raw, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "PRIVATE KEY") || strings.Contains(string(raw), "sealed:") {
		t.Fatal("the private key is shown")
	}
	again := call(t, s, "PUT", s.API+"/v1/certificates/main", map[string]any{"spec": got["spec"]}, 200)
	if again["revision"] != got["revision"] {
		t.Errorf("writing back what was read made revision %v of %v", again["revision"], got["revision"])
	}
}

// TestCertificateNamesListeners: a certificate that names the gateway is served when its own write is live, as one of
// two listeners or of both; nobody writes the gateway. The last one of a listener stays, and what a wildcard drains
// when it goes is said beforehand.
func TestCertificateNamesListeners(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "1")
	ports, err := porttest.Take(2)
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthority(t)
	certificate := func(more object, hosts ...string) object {
		chain, key := a.issue(t, hosts...)
		spec := object{"chain": chain, "private_key": key}
		maps.Copy(spec, more)
		return object{"spec": spec}
	}
	first := certificate(object{"gateways": []string{"default"}}, "first.test")
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{
		object{"kind": "Certificate", "name": "first", "spec": first["spec"]},
		object{"kind": "Gateway", "name": "default", "spec": object{"api_keys": keys(t, s), "listeners": []any{
			object{"name": "http", "port": s.ProxyPort},
			object{"name": "one", "port": ports[0], "protocol": "https"},
			object{"name": "two", "port": ports[1], "protocol": "https"},
		}}},
		direct("any", "any", object{"hosts": []string{"*"}}),
	}}, 200)
	presents := func(listener int, host, want string) {
		t.Helper()
		// Which one it is matters here, not whether it is one for the host.
		c, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[listener])),
			&tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err != nil {
			t.Fatalf("listener %d, %s: %v", listener, host, err)
		}
		defer func() { _ = c.Close() }()
		if cn := c.ConnectionState().PeerCertificates[0].Subject.CommonName; cn != want {
			t.Errorf("listener %d, %s: presented is %s, want %s", listener, host, cn, want)
		}
	}
	before := listenerStats(t, s)
	presents(0, "new.test", "first.test")
	call(t, s, "PUT", s.API+"/v1/certificates/new?wait=live", certificate(object{"gateways": []string{"default"}},
		"new.test"), 201)
	presents(0, "new.test", "new.test")
	presents(1, "new.test", "new.test")
	call(t, s, "PUT", s.API+"/v1/certificates/new?wait=live", certificate(object{"gateways": []string{"default"}},
		"renewed.test", "new.test"), 200)
	presents(1, "new.test", "renewed.test")
	call(t, s, "DELETE", s.API+"/v1/certificates/new?wait=live", nil, 200)
	presents(0, "new.test", "first.test")
	presents(1, "", "first.test")
	if now := listenerStats(t, s); !maps.Equal(now, before) {
		t.Errorf("the listeners were %v and are %v", before, now)
	}
	call(t, s, "DELETE", s.API+"/v1/certificates/first", nil, 409)

	// One listener alone: its names have a chain there, for they are not for the other listener's clients.
	call(t, s, "PUT", s.API+"/v1/certificates/two?wait=live", certificate(object{"listeners": []string{"two"}},
		"two.test"), 201)
	presents(0, "two.test", "first.test")
	presents(1, "two.test", "two.test")
	call(t, s, "PUT", s.API+"/v1/certificates/wild?wait=live", certificate(object{"listeners": []string{"one"}},
		"*.wild.test"), 201)
	presents(0, "a.wild.test", "*.wild.test")
	presents(1, "a.wild.test", "first.test")
	answer := call(t, s, "DELETE", s.API+"/v1/certificates/wild?dry_run=true", nil, 200)
	if said := fmt.Sprint(answer["warnings"]); !strings.Contains(said, "certificates/wild") ||
		!strings.Contains(said, "gateway.drains") {
		t.Errorf("the dry run says %s", said)
	}
	call(t, s, "DELETE", s.API+"/v1/certificates/wild?wait=live", nil, 200)
	presents(0, "a.wild.test", "first.test")
}
