package security

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/dnstest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// TestEndpoints: who may write services reaches neither Envoy's own machine nor the metadata service, by no form of an
// address, through no door, and by no name: what DNS says is refused as well, and status says so. What is allowed by
// its address is served.
func TestEndpoints(t *testing.T) {
	dns, err := dnstest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dns.Close() }) // its port is the test's own
	s := harness.ForTest(t, []string{"XDS_DNS_SERVERS=" + dns.Addr, "ALLOW_ENDPOINTS=127.0.0.2"}, "--no-demo")
	forbidden, allowed := listen(t, "127.0.0.1"), listen(t, "127.0.0.2")

	ok(t, s, "PUT", s.API+"/v1/services/idle", `{"spec":{}}`)
	for _, host := range []string{
		"127.0.0.1", "127.9.9.9", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "64:ff9b::7f00:1",
		"2002:7f00:1::", "localhost", "a.localhost",
		"169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "fd00:ec2::254",
		"169.254.0.7", "fe80::1", "ff02::1",
	} {
		service := fmt.Sprintf(`{"endpoints":[{"host":"192.0.2.1","port":80},{"host":%q,"port":%d}]}`, host, forbidden)
		refused(t, s, "PUT", s.API+"/v1/services/forbidden", `{"spec":`+service+`}`, "$.spec.endpoints[1].host")
		refused(t, s, "POST", s.API+"/v1/apply",
			`{"resources":[{"kind":"Service","name":"forbidden","spec":`+service+`}]}`, "$.resources[0].spec.endpoints[1].host")
		refused(t, s, "PUT", s.API+"/v1/endpoint-sets/forbidden",
			`{"spec":`+strings.Replace(service, "{", `{"service":"idle",`, 1)+`}`, "$.spec.endpoints[1].host")
		refused(t, s, "POST", s.XDS+"/v1/config",
			fmt.Sprintf(`{"services":[{"name":"forbidden","hosts":["192.0.2.1",%q],"port":%d}],
			"routes":[{"name":"r","cluster_name":"forbidden"}]}`, host, forbidden), "$.services[0].hosts[1]")
	}
	if status, raw, err := s.Call(t.Context(), "GET", s.API+"/v1/services/forbidden", nil); err != nil || status != 404 {
		t.Errorf("what was refused is there: %d %s %v", status, raw, err)
	}

	dns.Set("sly.test", dnstest.Answer{Addresses: []string{"127.0.0.1", "::ffff:169.254.169.254"}})
	dns.Set("both.test", dnstest.Answer{Addresses: []string{"127.0.0.1", "127.0.0.2"}})
	ok(t, s, "PUT", s.API+"/v1/services/sly", fmt.Sprintf(`{"spec":{"endpoints":[{"host":"sly.test","port":%d}]}}`,
		forbidden))
	ok(t, s, "PUT", s.API+"/v1/services/both", fmt.Sprintf(`{"spec":{"endpoints":[{"host":"both.test","port":%d}]}}`,
		allowed))
	for _, name := range []string{"sly", "both"} {
		ok(t, s, "PUT", s.API+"/v1/routes/"+name,
			fmt.Sprintf(`{"spec":{"hosts":["%s.example.com"],"backends":[{"service":%q}]}}`, name, name))
	}
	harness.Eventually(t, func() string {
		_, raw, err := s.Call(t.Context(), "GET", s.API+"/v1/status", nil)
		var st api.Status
		if err != nil || json.Unmarshal(raw, &st) != nil || len(st.Names) != 2 {
			return fmt.Sprintf("%s %v", raw, err)
		}
		for _, n := range st.Names {
			if n.Problem != "refused" || !strings.Contains(n.Reason, "127.0.0.1") {
				return fmt.Sprintf("%+v", n)
			}
		}
		return ""
	})
	c := probe.New(s.Proxy)
	defer c.Close()
	harness.Eventually(t, func() string {
		if a, _, err := c.Get("both.example.com", "/"); err != nil || a.Status != 200 || a.Body != "127.0.0.2" {
			return fmt.Sprintf("%+v %v", a, err)
		}
		return ""
	})
	for range 20 { // two endpoints would take turns
		if a, _, err := c.Get("both.example.com", "/"); err != nil || a.Status != 200 || a.Body != "127.0.0.2" {
			t.Fatalf("%+v %v", a, err)
		}
	}
	if a, _, err := c.Get("sly.example.com", "/"); err != nil || a.Status != 503 {
		t.Errorf("by a name: %+v %v", a, err)
	}
}

// listen serves its address on a free port.
func listen(t *testing.T, address string) (port int) {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	b := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, address)
	}))
	b.Listener.Close()
	b.Listener = lis
	b.Start()
	t.Cleanup(b.Close)
	_, text, _ := net.SplitHostPort(lis.Addr().String())
	port, err = strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// ok is a request that must succeed.
func ok(t *testing.T, s *harness.System, method, url string, body any) []byte {
	t.Helper()
	status, raw, err := s.Call(t.Context(), method, url, body)
	if err != nil || status >= 300 {
		t.Fatalf("%s %s: %d %s %v", method, url, status, raw, err)
	}
	return raw
}

// refused is a request whose answer must be 422 and name a field.
func refused(t *testing.T, s *harness.System, method, url string, body any, field string) {
	t.Helper()
	status, raw, err := s.Call(t.Context(), method, url, body)
	if err != nil || status != 422 || !strings.Contains(string(raw), `"path":"`+field+`"`) {
		t.Errorf("%s %s %v: %d %s %v, want 422 for %s", method, url, body, status, raw, err, field)
	}
}
