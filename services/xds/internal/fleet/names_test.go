package fleet_test

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
)

func service(t *testing.T, name string, hosts ...string) *resource.Object {
	t.Helper()
	s := &configv1.Service{}
	for _, h := range hosts {
		s.Endpoints = append(s.Endpoints, &configv1.Endpoint{Host: h, Port: 80})
	}
	o, err := resource.New(resource.Ref{Kind: resource.KindService, Name: name}, s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestNamesOfServices: a name is followed from the first service that has it, also one that no route sends to, to
// the last; the report says which services those are, and what is to be written follows.
func TestNamesOfServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := fleet.New(fleet.Options{ID: "x", Log: zap.NewNop(), Resolver: resolver.Options{
			Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
				if host == "known.test" {
					return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
				}
				return nil, resolver.ErrNotFound
			},
		}})
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		revision := int64(0)
		apply := func(objects ...*resource.Object) {
			t.Helper()
			revision++
			f.Apply(resource.Update{Commit: resource.Commit{Epoch: "e", Revision: revision}, Changed: objects})
			synctest.Wait()
		}
		says := func(want string, unresolved ...string) {
			t.Helper()
			got := ""
			for _, n := range f.Names(time.Now()).Names {
				got += fmt.Sprint(n.Host, " ", n.Problem, " ", n.Services, ";")
			}
			if u := f.Unresolved(); got != want || !slices.Equal(u, unresolved) {
				t.Errorf("reports %q, unresolved %v; want %q, %v", got, u, want, unresolved)
			}
		}
		apply(service(t, "a", "known.test", "192.0.2.7", "nobody.test"), service(t, "b", "nobody.test"))
		says("nobody.test not_found [a b];", "nobody.test")
		if got := f.Unsaved(); !reflect.DeepEqual(got,
			map[string][]netip.Addr{"known.test": {netip.MustParseAddr("192.0.2.1")}, "nobody.test": nil}) {
			t.Errorf("to be written: %v", got)
		}
		apply(service(t, "a", "known.test"))
		says("nobody.test not_found [b];", "nobody.test")
		apply(service(t, "a", "192.0.2.7"), resource.Tombstone(resource.Ref{Kind: resource.KindService, Name: "b"}, 3))
		says("")
		if got := f.Unsaved(); !reflect.DeepEqual(got, map[string][]netip.Addr{"known.test": nil, "nobody.test": nil}) {
			t.Errorf("to be written: %v", got)
		}
		var many []*resource.Object
		for i := range 20 {
			many = append(many, service(t, fmt.Sprintf("s%02d", i), "nobody.test"))
		}
		apply(many...)
		if n := f.Names(time.Now()).Names; len(n) != 1 || len(n[0].Services) != 10 || n[0].Problem != status.NameNotFound {
			t.Errorf("%+v", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
