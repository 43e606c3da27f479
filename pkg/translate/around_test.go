package translate_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/pkg/translate/arbitrary"
)

// TestAround: what is made around a host is what Envoys get for it, in arbitrary configurations: the same table of the
// host itself, and of the wildcards the same virtual hosts as far as they can serve the host.
func TestAround(t *testing.T) {
	certs := certificates(t)
	compared := 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 11))
		data := make([]byte, 800+r.IntN(2500))
		for i := range data {
			data[i] = byte(r.UintN(256))
		}
		st := config.New()
		st.Apply([]*resource.Object{gatewayObject(t)})
		for _, o := range arbitrary.Objects(data, certs) {
			arbitrary.Accept(st, o)
		}
		for _, gateway := range gateways {
			whole := builder(gateway)
			whole.Rebuild(st)
			hosts := append(st.Hosts(gateway), "x.example.com", "x.b.example.com", "A.Example.Com", "nobody")
			for _, host := range hosts {
				around := translate.At(st, gateway, host)
				if around == nil {
					continue
				}
				built, err := around.Build(translate.Options{Resolve: known})
				if err != nil {
					t.Fatal(err)
				}
				for res := range whole.All() {
					listener, of, is := strings.Cut(res.Name, "/")
					if res.Type != translate.TypeScope || !is || (of != strings.ToLower(host) && of != config.AnyHost) {
						continue
					}
					want := &routev3.ScopedRouteConfiguration{}
					if err := res.Body.UnmarshalTo(want); err != nil {
						t.Fatal(err)
					}
					got, err := built.RoutesOf(listener, of)
					if err != nil {
						t.Fatal(err)
					}
					compared += sameFor(t, host, want.GetRouteConfiguration(), got)
				}
			}
		}
	}
	if compared < 500 {
		t.Fatalf("%d virtual hosts were compared", compared)
	}
	if translate.At(config.New(), "none", "a") != nil {
		t.Error("there is something around a host of a gateway that does not exist")
	}
}

// sameFor compares the virtual hosts that may serve a host. What depends on services is left out.
func sameFor(t *testing.T, host string, want, got *routev3.RouteConfiguration) (compared int) {
	t.Helper()
	of := map[string]*routev3.VirtualHost{}
	for _, v := range got.GetVirtualHosts() {
		of[v.GetName()] = plainly(v)
	}
	for _, v := range want.GetVirtualHosts() {
		suffix, wild := strings.CutPrefix(v.GetDomains()[0], "*")
		if (wild && !strings.HasSuffix(strings.ToLower(host), suffix)) || (!wild && v.GetDomains()[0] != host) {
			continue
		}
		compared++
		if !proto.Equal(plainly(v), of[v.GetName()]) {
			t.Errorf("host %s: virtual host %s of %s is\n%v\nand should be\n%v", host, v.GetName(), want.GetName(),
				of[v.GetName()], plainly(v))
		}
	}
	return compared
}

func plainly(v *routev3.VirtualHost) *routev3.VirtualHost {
	v = proto.CloneOf(v)
	for _, r := range v.GetRoutes() {
		if a := r.GetRoute(); a != nil {
			a.HashPolicy, a.MaxStreamDuration, a.RetryPolicy = nil, nil, nil
		}
	}
	return v
}
