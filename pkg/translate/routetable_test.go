package translate_test

import (
	"slices"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestRouteTable: the table of a listener has every host with its domain and the routes of its scope, and what the
// scopes say beside these: a body that a scope may have is taken in the table, too.
func TestRouteTable(t *testing.T) {
	c := newCrowd(t, 30)
	c.apply(c.object(resource.KindRoute, "long", &configv1.Route{
		Hosts: []string{"long.test"}, DirectResponse: &configv1.DirectResponse{
			Status: 200, Body: string(make([]byte, 5000)),
		},
	}))
	table := translate.NewRouteTable("http")
	scopes := map[string]*routev3.RouteConfiguration{}
	for r := range c.b.All() {
		if r.Type != translate.TypeScope {
			continue
		}
		if err := table.Put(r.Name, r); err != nil {
			t.Fatal(err)
		}
		var s routev3.ScopedRouteConfiguration
		if err := r.Body.UnmarshalTo(&s); err != nil {
			t.Fatal(err)
		}
		scopes[r.Name] = s.GetRouteConfiguration()
	}
	if err := table.Put("others/long.test", nil); err != nil {
		t.Error(err)
	}
	var got routev3.RouteConfiguration
	if err := table.Resource().Body.UnmarshalTo(&got); err != nil {
		t.Fatal(err)
	}
	if err := got.ValidateAll(); err != nil {
		t.Error(err)
	}
	domains := map[string]int{}
	for _, v := range got.GetVirtualHosts() {
		domains[v.GetDomains()[0]] = len(v.GetRoutes())
	}
	if len(domains) != 33 || domains["*"] != 3 || domains["*.wild.test"] != 3 || domains["host-7.example.com"] != 3 {
		t.Errorf("hosts: %v", domains)
	}
	for name, s := range scopes {
		if got.GetMaxDirectResponseBodySizeBytes().GetValue() != s.GetMaxDirectResponseBodySizeBytes().GetValue() ||
			!slices.Equal(got.GetRequestHeadersToRemove(), s.GetRequestHeadersToRemove()) {
			t.Fatalf("the table says something else than scope %s", name)
		}
	}
}
