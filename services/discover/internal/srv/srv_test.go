package srv

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/marchproxy/marchproxy/pkg/dnstest"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// TestSRV: a real DNS server's records become endpoints, those of the first priority; a name that fails keeps what it
// had, and until every name has been found once nothing is handed over.
func TestSRV(t *testing.T) {
	dns, err := dnstest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dns.Close() }) // its port is the test's own
	record := func(priority, weight, port uint16, target string) dnsmessage.SRVResource {
		return dnsmessage.SRVResource{Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(target)}
	}
	names, err := Parse("web=_http._tcp.web.test, api=_http._tcp.api.test")
	if err != nil || len(names) != 2 {
		t.Fatal(names, err)
	}
	s := New(Options{Names: names, Server: dns.Addr, Patience: 2 * time.Second, Log: zap.NewNop()})
	dns.Set("_http._tcp.web.test", dnstest.Answer{Services: []dnsmessage.SRVResource{
		record(1, 10, 8080, "a.test."), record(1, 20, 8081, "b.test."), record(2, 1, 9090, "c.test."),
	}})
	dns.Set("a.test", dnstest.Answer{Addresses: []string{"192.0.2.1", "2001:db8::1"}})
	dns.Set("b.test", dnstest.Answer{Addresses: []string{"192.0.2.2"}})
	if all, err := s.look(t.Context()); err == nil || all != nil {
		t.Errorf("before every name was found: %v %v", all, err)
	}
	dns.Set("_http._tcp.api.test", dnstest.Answer{Services: []dnsmessage.SRVResource{record(0, 0, 80, "b.test.")}})
	want := fmt.Sprint([]source.Endpoint{
		{Host: "192.0.2.1", Port: 8080, Weight: 10, State: source.Ready},
		{
			Host: "192.0.2.2", Port: 8081, Weight: 20,
			State: source.Ready,
		},
		{Host: "2001:db8::1", Port: 8080, Weight: 10, State: source.Ready},
	})
	look := func() (web, api string, err error) {
		all, err := s.look(t.Context())
		if len(all) != 2 {
			t.Fatal(all, err)
		}
		return fmt.Sprint(all[0].Endpoints), fmt.Sprint(all[1].Endpoints), err
	}
	if web, api, err := look(); err != nil || web != want ||
		api != fmt.Sprint([]source.Endpoint{{Host: "192.0.2.2", Port: 80, State: source.Ready}}) {
		t.Errorf("%s, %s, %v; want %s", web, api, err, want)
	}
	dns.Set("_http._tcp.web.test", dnstest.Answer{Code: dnsmessage.RCodeServerFailure})
	dns.Set("_http._tcp.api.test", dnstest.Answer{Services: []dnsmessage.SRVResource{record(0, 0, 81, "b.test.")}})
	if web, api, err := look(); err == nil || web != want ||
		api != fmt.Sprint([]source.Endpoint{{Host: "192.0.2.2", Port: 81, State: source.Ready}}) {
		t.Errorf("while one name fails: %s, %s, %v", web, api, err)
	}
	for _, bad := range []string{"web", "web=", "Web=x.test"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
