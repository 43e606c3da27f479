package resolver_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/marchproxy/marchproxy/pkg/dnstest"
	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
)

func server(t *testing.T) *dnstest.Server {
	t.Helper()
	s, err := dnstest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // some tests have done it
	return s
}

// TestSystem: what a real DNS server answers, and what is made of it.
func TestSystem(t *testing.T) {
	dns := server(t)
	dns.Set("both.test", dnstest.Answer{Addresses: []string{"192.0.2.1", "2001:db8::1"}})
	dns.Set("four.test", dnstest.Answer{Addresses: []string{"192.0.2.2"}})
	dns.Set("none.test", dnstest.Answer{})
	dns.Set("broken.test", dnstest.Answer{Code: dnsmessage.RCodeServerFailure})
	dns.Set("refused.test", dnstest.Answer{Code: dnsmessage.RCodeRefused})
	dns.Set("silent.test", dnstest.Answer{Silent: true})
	closed := server(t)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	lookup := resolver.System(dns.Addr)
	for host, c := range map[string]struct {
		addrs int
		is    error
		says  string
	}{
		"both.test.":    {2, nil, ""},
		"four.test.":    {1, nil, ""},
		"none.test.":    {0, resolver.ErrNoAddresses, "no A and no AAAA"},
		"nobody.test.":  {0, resolver.ErrNotFound, "NXDOMAIN"},
		"broken.test.":  {0, nil, "DNS server " + dns.Addr + " answers SERVFAIL"},
		"refused.test.": {0, nil, "DNS server " + dns.Addr + " answers REFUSED"},
		"closed.test.":  {0, nil, "DNS server " + closed.Addr + " refuses connections"},
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			look := lookup
			if host == "closed.test." {
				look = resolver.System(closed.Addr)
			}
			addrs, err := look(t.Context(), host)
			switch {
			case len(addrs) != c.addrs:
				t.Errorf("%v, %v", addrs, err)
			case c.says == "" && err != nil, c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("%v, want %q", err, c.says)
			case c.is != nil && !errors.Is(err, c.is):
				t.Errorf("%v, want %v", err, c.is)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		limit, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := lookup(limit, "silent.test.")
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v, want a timeout", err)
		}
	})
	t.Run("no answer for AAAA", func(t *testing.T) {
		t.Parallel()
		dns.Set("half.test", dnstest.Answer{Addresses: []string{"192.0.2.1"}, SilentFor: dnsmessage.TypeAAAA})
		began := time.Now()
		addrs, err := lookup(t.Context(), "half.test.")
		if len(addrs) != 1 || err == nil || time.Since(began) > 2500*time.Millisecond {
			t.Errorf("%v, %v after %s; want what there is, with an error, after a second", addrs, err, time.Since(began))
		}
	})
	t.Run("the first of two is away", func(t *testing.T) {
		t.Parallel()
		addrs, err := resolver.System(closed.Addr, dns.Addr)(t.Context(), "both.test.")
		if len(addrs) != 2 || err != nil {
			t.Errorf("%v, %v", addrs, err)
		}
	})
}
