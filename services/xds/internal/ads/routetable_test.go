package ads_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// TestRouteTables: what a client gets that asks for route tables is the same, however the scopes came and went, as from
// a gateway that has had nothing else: with two listeners, one that goes and comes back, and more changes than the log
// keeps.
func TestRouteTables(t *testing.T) {
	st, revision := config.New(), int64(0)
	b, g := translate.NewBuilder("default", translate.Options{}), newGateway()
	change := func(objects ...*resource.Object) {
		t.Helper()
		changes, _ := st.Apply(objects)
		d, problems := b.Update(st, changes, b.Policies())
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		revision++
		g.Apply(revision, d)
	}
	object := func(kind, name string, m proto.Message) *resource.Object {
		t.Helper()
		o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	gateway := func(listeners ...string) *resource.Object {
		spec := &configv1.Gateway{}
		for i, name := range listeners {
			spec.Listeners = append(spec.Listeners, &configv1.Listener{Name: name, Port: uint32(10000 + i)})
		}
		return object(resource.KindGateway, "default", spec)
	}
	route := func(i int, body string, hosts ...string) *resource.Object {
		return object(resource.KindRoute, fmt.Sprint("r", i), &configv1.Route{
			Hosts:          hosts,
			DirectResponse: &configv1.DirectResponse{Status: 200, Body: body},
		})
	}
	same := func(how string) {
		t.Helper()
		fresh := newGateway()
		d, _ := translate.NewBuilder("default", translate.Options{}).Rebuild(st)
		fresh.Apply(1, d)
		for _, listener := range []string{"http", "other"} {
			got, want := g.RouteTable(listener), fresh.RouteTable(listener)
			if (got == nil) != (want == nil) || got != nil && (got.Version != want.Version ||
				string(got.Body.GetValue()) != string(want.Body.GetValue())) {
				t.Fatalf("%s: %s is another table", how, listener)
			}
			if g.RouteTable(listener) != got {
				t.Errorf("%s: %s was put together again for nothing", how, listener)
			}
		}
	}
	change(gateway("http"), route(1, "one", "a.test"), route(2, "two", "b.test", "*.b.test"))
	same("at first")
	change(route(1, "another", "a.test"), route(3, "three", "c.test"))
	same("after a change and a new host")
	change(gateway("http", "other"))
	same("after a listener more")
	change(resource.Tombstone(route(2, "", "b.test").Ref(), 9))
	same("after a host went")
	change(gateway("http"))
	same("after a listener went")
	change(gateway("http", "other"), route(1, "last", "a.test"))
	for i := range ads.MaxLag + 10 {
		change(route(4, fmt.Sprint(i), fmt.Sprintf("h%d.test", i%7)))
	}
	same("after more changes than are kept")
}

// BenchmarkRouteTable: a host changes in a table of 10,000, which a client asks for then.
func BenchmarkRouteTable(b *testing.B) {
	const hosts = 10_000
	route := func(i int, body string) *resource.Object {
		name := fmt.Sprint("r", i)
		o, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: name}, &configv1.Route{
			Hosts: []string{name + ".test"}, DirectResponse: &configv1.DirectResponse{Status: 200, Body: body},
		})
		if err != nil {
			b.Fatal(err)
		}
		return o
	}
	spec := &configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: 10000}}}
	gateway, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: "default"}, spec)
	if err != nil {
		b.Fatal(err)
	}
	objects := []*resource.Object{gateway}
	for i := range hosts {
		objects = append(objects, route(i, "x"))
	}
	st := config.New()
	st.Apply(objects)
	builder, g := translate.NewBuilder("default", translate.Options{}), newGateway()
	d, _ := builder.Rebuild(st)
	g.Apply(1, d)
	var versions [2]*translate.Resource
	for i := range versions {
		changes, _ := st.Apply([]*resource.Object{route(7, fmt.Sprint(i))})
		d, _ := builder.Update(st, changes, builder.Policies())
		versions[i] = d.Upserts[0]
	}
	g.RouteTable("http")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		apply(g, int64(i+2), versions[i%2:i%2+1])
		g.RouteTable("http")
	}
}
