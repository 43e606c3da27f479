package fleet_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
)

// TestRefusedEndpoint: an address that this server refuses and the api did not is spoken of like a name that resolves
// to one.
func TestRefusedEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := fleet.New(fleet.Options{ID: "x", Log: zap.NewNop(), Resolver: resolver.Options{Lookup: func(_ context.Context,
			host string,
		) ([]netip.Addr, error) {
			a, err := netip.ParseAddr(host) // as Go's own resolver does
			return []netip.Addr{a}, err
		}}})
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		objects := []*resource.Object{service(t, "a", "192.0.2.7", "127.0.0.1")}
		f.Apply(resource.Update{Commit: resource.Commit{Epoch: "e", Revision: 1}, Changed: objects})
		synctest.Wait()
		n := f.Names(time.Now()).Names
		if len(n) != 1 || n[0].Host != "127.0.0.1" || n[0].Problem != status.NameRefused || !strings.Contains(n[0].Reason,
			"ALLOW_ENDPOINTS=loopback") {
			t.Errorf("%+v", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
