package security

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/dnstest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// TestImpostor: who comes by the address that DNS says of a service's name is the service where nothing is asked of it.
// With TLS, it needs a certificate of the service's authority for the service's name.
func TestImpostor(t *testing.T) {
	dns, err := dnstest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dns.Close() }) // its port is the test's own
	s := harness.ForTest(t, []string{"XDS_DNS_SERVERS=" + dns.Addr, "ALLOW_ENDPOINTS=127.0.0.0/29"}, "--no-demo")
	own, other := newCA(t, "own"), newCA(t, "other")
	// serve has a server say who it is, at an address of its own and a port that all have.
	serve := func(addr, who string, pair [2]string) string {
		t.Helper()
		lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		b := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, who)
		}))
		_ = b.Listener.Close()                         // another one takes its place
		b.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail here, as they should
		b.Listener = lis
		if pair[0] == "" {
			b.Start()
		} else {
			c, err := tls.X509KeyPair([]byte(pair[0]), []byte(pair[1]))
			if err != nil {
				t.Fatal(err)
			}
			b.TLS = &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12}
			b.StartTLS()
		}
		t.Cleanup(b.Close)
		_, port, err := net.SplitHostPort(lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	issue := func(a *ca, name string) [2]string {
		chain, key := a.issue(t, name)
		return [2]string{chain, key}
	}
	secure := serve("127.0.0.1:0", "the service", issue(own, "id.test"))
	for addr, pair := range map[string][2]string{
		"127.0.0.2": issue(other, "id.test"), "127.0.0.3": issue(own, "another.test"),
	} {
		serve(net.JoinHostPort(addr, secure), "an impostor", pair)
	}
	plain := serve("127.0.0.1:0", "the service", [2]string{})
	serve("127.0.0.2:"+plain, "an impostor", [2]string{})

	dns.Set("id.test", dnstest.Answer{Addresses: []string{"127.0.0.1"}})
	s.Want(t, "PUT", s.API+"/v1/certificates/own", map[string]any{"spec": map[string]string{"chain": own.PEM}}, 201)
	for name, spec := range map[string]string{
		"plain": `{"endpoints":[{"host":"id.test","port":` + plain + `}]}`,
		"secure": `{"protocol":"https","tls":{"ca_certificate":"own"},"endpoints":[{"host":"id.test","port":` +
			secure + `}]}`,
	} {
		s.Want(t, "PUT", s.API+"/v1/services/"+name, `{"spec":`+spec+`}`, 201)
		s.Want(t, "PUT", s.API+"/v1/routes/"+name+"?wait=live",
			`{"spec":{"hosts":["`+name+`.example.com"],"backends":[{"service":"`+name+`"}]}}`, 201)
	}
	answers := func(name string, status int, body string) {
		t.Helper()
		c := probe.New(s.Proxy)
		defer c.Close()
		harness.Eventually(t, func() string {
			a, _, err := c.Get(name+".example.com", "/")
			if err != nil || a.Status != status || body != "" && a.Body != body {
				return fmt.Sprintf("%s: %+v %v, want %d %q", name, a, err, status, body)
			}
			return ""
		})
	}
	answers("plain", 200, "the service")
	answers("secure", 200, "the service")
	for _, addr := range []string{"127.0.0.2", "127.0.0.3"} {
		dns.Set("id.test", dnstest.Answer{Addresses: []string{addr}})
		answers("secure", 503, "")
		if addr == "127.0.0.2" {
			answers("plain", 200, "an impostor")
		}
	}
	dns.Set("id.test", dnstest.Answer{Addresses: []string{"127.0.0.1"}})
	answers("secure", 200, "the service")
}
