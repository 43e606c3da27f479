package ads_test

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// nearest are the cluster and the endpoints of a service whose endpoints in the clouds come first for Envoys there.
func nearest(t *testing.T, clouds ...string) []*translate.Resource {
	t.Helper()
	s := &configv1.Service{Locality: &configv1.LocalityPolicy{Prefer: configv1.LocalityPolicy_cloud}}
	for i, c := range clouds {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		s.Endpoints = append(s.Endpoints, &configv1.Endpoint{Host: a.String(), Port: 80, Cloud: c})
	}
	st := config.New()
	for _, o := range []struct {
		ref  resource.Ref
		spec proto.Message
	}{
		{resource.Ref{Kind: resource.KindGateway, Name: "default"}, &configv1.Gateway{
			Listeners: []*configv1.Listener{{Name: "http", Port: 10000}},
		}},
		{resource.Ref{Kind: resource.KindService, Name: "web"}, s},
		{resource.Ref{Kind: resource.KindRoute, Name: "web"}, &configv1.Route{
			Backends: []*configv1.Backend{{Service: "web"}},
		}},
	} {
		made, err := resource.New(o.ref, o.spec)
		if err != nil {
			t.Fatal(err)
		}
		st.Apply([]*resource.Object{made})
	}
	b := translate.NewBuilder("default", translate.Options{})
	b.Rebuild(st)
	var out []*translate.Resource
	for r := range b.All() {
		if r.Name == "web" && (r.Type == cluster || r.Type == endpoint) {
			out = append(out, r)
		}
	}
	return out
}

// TestLocality: each Envoy gets the endpoints for where it is, and those at one place the same ones. A change is
// applied when each has its own, and nothing is sent again to Envoys that come back to a server which has begun anew.
func TestLocality(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		first := nearest(t, "aws", "gcp")
		apply(g, 1, first)
		fleet := map[string]*envoy{}
		for name, l := range map[string]*corev3.Locality{
			"aws": {Region: "aws", Zone: "a"}, "also aws": {Region: "aws", Zone: "a"}, "gcp": {Region: "gcp"}, "nowhere": nil,
		} {
			fleet[name] = connectAt(t, g, name, l)
			fleet[name].settle()
		}
		has := func(name string, of []*translate.Resource) {
			t.Helper()
			i := slices.IndexFunc(of, func(r *translate.Resource) bool { return r.Type == endpoint })
			want := of[i].At(locality.FromEnvoy(fleet[name].place)).Version
			if got := fleet[name].has[endpoint]["web"].GetVersion(); got != want {
				t.Errorf("the Envoy %s has version %s, want %s", name, got, want)
			}
		}
		for name, e := range fleet {
			has(name, first)
			e.log = nil
		}
		versions := map[string]bool{}
		for _, e := range fleet {
			versions[e.has[endpoint]["web"].GetVersion()] = true
		}
		if len(versions) != 3 {
			t.Errorf("%d versions for three places", len(versions))
		}

		second := nearest(t, "aws", "gcp", "gcp")
		apply(g, 2, second)
		for name, e := range fleet {
			e.settle()
			has(name, second)
			e.log = nil
		}
		if got := g.Live(); got != 2 {
			t.Errorf("live %d, want 2", got)
		}

		again := newGateway()
		apply(again, 2, nearest(t, "aws", "gcp", "gcp"))
		for _, e := range fleet {
			e.hangUp()
			e.dial(again)
			e.settle()
			for _, sent := range e.log {
				if sent == "ClusterLoadAssignment web" || sent == "Cluster web" {
					t.Errorf("the Envoy %s was sent again what it has: %q", e.name, e.log)
				}
			}
		}
		if got := again.Live(); got != 2 {
			t.Errorf("live %d after the server began anew, want 2", got)
		}
		if r := again.Rejections(); len(r) > 0 {
			t.Errorf("rejections %v", r)
		}
	})
}
