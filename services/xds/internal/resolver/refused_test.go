package resolver_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
)

// TestRefusedAddresses: of what a name resolves to only what a service may have is served, and what else there is is
// said. A name that moves to nothing else keeps what it had, as one that fails does.
func TestRefusedAddresses(t *testing.T) {
	run(t, func(z *zone, r *resolver.Resolver, _ func() []string) {
		trouble := func(host, about string) {
			t.Helper()
			for _, x := range r.Troubles() {
				if x.Host == host {
					if x.Problem != status.NameRefused || !strings.Contains(x.Reason, about) {
						t.Errorf("%s: %s, %s; want %s", host, x.Problem, x.Reason, about)
					}
					return
				}
			}
			t.Errorf("%s has no trouble", host)
		}
		z.set("own.test", "127.0.0.1", "::1")
		z.set("metadata.test", "::ffff:169.254.169.254")
		z.set("both.test", "192.0.2.1", "fd00:ec2::254")
		z.set("turns.test", "192.0.2.9")
		for _, host := range []string{"own.test", "metadata.test", "both.test", "turns.test"} {
			r.Follow(host)
		}
		synctest.Wait()
		want(t, r, "own.test", true)
		want(t, r, "metadata.test", true)
		want(t, r, "both.test", true, "192.0.2.1")
		want(t, r, "turns.test", true, "192.0.2.9")
		trouble("own.test", "has 127.0.0.1, which is a loopback address and refused")
		trouble("metadata.test", "a cloud's metadata service")
		trouble("both.test", "has fd00:ec2::254")
		z.set("turns.test", "127.0.0.1")
		time.Sleep(6 * time.Second)
		synctest.Wait()
		want(t, r, "turns.test", true, "192.0.2.9")
		trouble("turns.test", "has 127.0.0.1")
	})
}

// TestRefusedRestored: addresses of an earlier life, when others were allowed, are not served either.
func TestRefusedRestored(t *testing.T) {
	runAfter(t, func(z *zone, r *resolver.Resolver) {
		z.change(func() { z.errs["own.test"] = resolver.ErrNotFound })
		r.Follow("own.test")
		r.Restore(map[string][]netip.Addr{"own.test": {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")}})
	}, func(_ *zone, r *resolver.Resolver, _ func() []string) {
		synctest.Wait()
		want(t, r, "own.test", true, "192.0.2.1")
	})
}
