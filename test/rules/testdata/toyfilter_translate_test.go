package translate_test

import (
	"slices"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestToyFilter is copied here by the test of the same name (test/rules), into a tree that has the toy filter.
func TestToyFilter(t *testing.T) {
	toy := translate.Key{Type: translate.TypeExtension, Name: "marchproxy.toy"}
	route := func(hosts, more string) *resource.Object {
		return object(t, resource.KindRoute, "r", `{"hosts":[`+hosts+`],`+more+`"direct_response":{"status":200}}`)
	}
	for hosts, scope := range map[string]string{`"a.test"`: "http/a.test", `"*.b.test"`: "http/*", `"*"`: "http/*"} {
		st := config.New()
		st.Apply([]*resource.Object{
			gatewayObject(t), object(t, resource.KindService, "toys", `{"endpoints":[{"host":"192.0.2.1","port":80}]}`),
			route(hosts, ""),
		})
		b := builder(resource.DefaultGateway)
		b.Rebuild(st)
		asleep, filters := b.Get(toy), filtersOf(t, b)
		if asleep == nil {
			t.Fatal("its place has no content")
		}
		if at := slices.Index(filters, toy.Name); at < 0 || filters[at-1] != "marchproxy.route_rate_limit" {
			t.Errorf("filters: %v", filters)
		}

		// The first route that asks for it: the place, the table and the cluster, and no listener.
		changes, _ := st.Apply([]*resource.Object{route(hosts, `"toy":"toys",`)})
		if p := append(st.Check(changes), translate.Check(st, changes)...); len(p) > 0 {
			t.Fatal(p)
		}
		d, _ := b.Update(st, changes, b.Policies())
		table := translate.Key{Type: translate.TypeScope, Name: scope}
		var got []translate.Key
		for _, r := range d.Upserts {
			got = append(got, r.Key)
			valid(t, r)
		}
		want := []translate.Key{
			{Type: translate.TypeCluster, Name: "toys"}, toy, {Type: translate.TypeEndpoint, Name: "toys"}, table,
		}
		slices.SortFunc(got, compareKeys)
		slices.SortFunc(want, compareKeys)
		if !slices.Equal(got, want) {
			t.Errorf("%s: changed are %v, want %v", hosts, got, want)
		}
		if r := b.Get(table); !slices.Contains(r.Needs, toy) || !slices.Contains(r.Clusters, "toys") ||
			!tells(t, r, toy.Name) {
			t.Errorf("%s: the table needs %v and the clusters %v", hosts, r.Needs, r.Clusters)
		}

		changes, _ = st.Apply([]*resource.Object{route(hosts, "")})
		if b.Update(st, changes, b.Policies()); b.Get(toy).Version != asleep.Version {
			t.Errorf("%s: nobody asks for it, and it is awake", hosts)
		}
		changes, undo := st.Apply([]*resource.Object{route(hosts, `"toy":"nobody",`)})
		if p := st.Check(changes); len(p) != 1 || p[0].Path != "$.toy" {
			t.Errorf("%s: a service that is not there: %v", hosts, p)
		}
		undo()
	}
}

func compareKeys(a, b translate.Key) int {
	return slices.Compare([]string{string(a.Type), a.Name}, []string{string(b.Type), b.Name})
}

// filtersOf are the HTTP filters of the listener, in order.
func filtersOf(t *testing.T, b *translate.Builder) (out []string) {
	t.Helper()
	var l listenerv3.Listener
	if err := b.Get(translate.Key{Type: translate.TypeListener, Name: "http"}).Body.UnmarshalTo(&l); err != nil {
		t.Fatal(err)
	}
	for _, f := range l.GetFilterChains()[0].GetFilters() {
		var m hcmv3.HttpConnectionManager
		if f.GetTypedConfig() == nil || f.GetTypedConfig().UnmarshalTo(&m) != nil {
			continue
		}
		for _, h := range m.GetHttpFilters() {
			out = append(out, h.GetName())
		}
	}
	return out
}

// tells says whether a route of a table tells a filter something.
func tells(t *testing.T, r *translate.Resource, filter string) bool {
	t.Helper()
	var scope routev3.ScopedRouteConfiguration
	if err := r.Body.UnmarshalTo(&scope); err != nil {
		t.Fatal(err)
	}
	for _, v := range scope.GetRouteConfiguration().GetVirtualHosts() {
		for _, route := range v.GetRoutes() {
			if route.GetTypedPerFilterConfig()[filter] != nil {
				return true
			}
		}
	}
	return false
}
