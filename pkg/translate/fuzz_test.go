package translate_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	httpwasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/filterconfig"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/pkg/translate/arbitrary"
)

func certificates(t testing.TB) []*configv1.Certificate {
	t.Helper()
	var out []*configv1.Certificate
	for _, f := range []string{"https", "client-auth"} {
		for _, o := range read(t, "testdata/in/"+f+".yaml") {
			if c, ok := o.Message().(*configv1.Certificate); ok {
				out = append(out, c)
			}
		}
	}
	return out
}

// gateways of the fuzzed configurations.
var gateways = []string{resource.DefaultGateway, "edge"}

func builder(gateway string) *translate.Builder {
	return translate.NewBuilder(gateway, translate.Options{Resolve: known})
}

// known resolves every name: endpoints that are not known yet are withheld, and then what there is
// depends on what there was, on purpose.
func known(host string) ([]netip.Addr, bool) {
	return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(len(host))})}, true
}

// FuzzTranslate: what the checks accept is built without a panic, every message of it keeps Envoy's own
// schema rules, and the way there does not matter: change by change, in another order, with detours, or
// all at once.
func FuzzTranslate(f *testing.F) {
	certs := certificates(f)
	for seed := range uint64(64) {
		r := rand.New(rand.NewPCG(seed, 3))
		data := make([]byte, 200+r.IntN(1500))
		for i := range data {
			data[i] = byte(r.UintN(256))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		st := config.New()
		changes, _ := st.Apply([]*resource.Object{gatewayObject(t)})
		builders := map[string]*translate.Builder{}
		for _, g := range gateways {
			builders[g] = builder(g)
			builders[g].Update(st, changes, translate.Policies{})
		}
		for _, o := range arbitrary.Objects(data, certs) {
			before := st.Summary()
			accepted, changes := arbitrary.Accept(st, o)
			if accepted == nil {
				if !maps.Equal(before, st.Summary()) {
					t.Fatal("a refused object was not taken back")
				}
				continue
			}
			for g, b := range builders {
				if _, problems := b.Update(st, changes, b.Policies()); len(problems) > 0 {
					t.Errorf("gateway %s: accepted, and then: %v", g, problems)
				}
			}
		}
		for _, g := range gateways {
			fresh := builder(g)
			fresh.Rebuild(st)
			for r := range fresh.All() {
				valid(t, r)
			}
			settle(builders[g], st)
			same(t, "change by change", builders[g], fresh)
			if d, _ := builders[g].Rebuild(st); len(d.Upserts)+len(d.Removes) > 0 {
				t.Errorf("building everything again changes %d", len(d.Upserts)+len(d.Removes))
			}
			same(t, "in another order", shuffled(st, g, data), fresh)
		}
	})
}

// shuffled builds a state's objects one by one in an order of their own, with every other one deleted and
// put back on the way.
func shuffled(of *config.State, gateway string, data []byte) *translate.Builder {
	objects := slices.SortedFunc(of.All, func(a, b *resource.Object) int { return a.Ref().Compare(b.Ref()) })
	r := rand.New(rand.NewPCG(uint64(len(data)), 5))
	r.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
	b, st := builder(gateway), config.New()
	apply := func(o *resource.Object) {
		changes, _ := st.Apply([]*resource.Object{o})
		b.Update(st, changes, b.Policies())
	}
	for i, o := range objects {
		apply(o)
		if i%2 == 1 {
			apply(resource.Tombstone(objects[i/2].Ref(), 1))
		}
	}
	for _, o := range objects {
		if st.Get(o.Ref()) == nil {
			apply(o)
		}
	}
	settle(b, st)
	return b
}

// settle does what comes when the Envoys have the new routes: until then policies that these no longer name stay,
// and what there is depends on what there was, on purpose.
func settle(b *translate.Builder, st *config.State) {
	b.Update(st, nil, translate.Policies{})
}

func same(t *testing.T, how string, got, want *translate.Builder) {
	t.Helper()
	describe := func(b *translate.Builder) map[string]string {
		out := map[string]string{}
		for r := range b.All() {
			out[string(r.Type)+" "+r.Name] = fmt.Sprint(r.Version, r.Clusters, r.Secrets, r.Policies, r.Needs, r.Objects)
		}
		return out
	}
	g, w := describe(got), describe(want)
	for k, v := range w {
		if g[k] != v {
			t.Errorf("%s: %s is %q instead of %q", how, k, g[k], v)
		}
	}
	for k := range g {
		if _, ok := w[k]; !ok {
			t.Errorf("%s: %s should not be there", how, k)
		}
	}
	if !slices.Equal(got.DNSNames(), want.DNSNames()) {
		t.Errorf("%s: names %v instead of %v", how, got.DNSNames(), want.DNSNames())
	}
}

// valid checks a resource and everything that is packed into it against Envoy's schema rules.
func valid(t *testing.T, r *translate.Resource) {
	t.Helper()
	var check func(a *anypb.Any)
	check = func(a *anypb.Any) {
		m, err := a.UnmarshalNew()
		if err != nil {
			t.Fatalf("%s: %v", r.Name, err)
		}
		if w, ok := m.(*httpwasmv3.Wasm); ok {
			takes(t, r, w.GetConfig())
		}
		if v, ok := m.(interface{ ValidateAll() error }); ok {
			if err := v.ValidateAll(); err != nil {
				t.Errorf("%s %s: %v", r.Type, r.Name, err)
			}
		}
		packed(m.ProtoReflect(), check)
	}
	check(r.Body)
}

// takes fails unless the filter itself takes its configuration.
func takes(t *testing.T, r *translate.Resource, c *wasmv3.PluginConfig) {
	t.Helper()
	text := &wrapperspb.StringValue{}
	if err := c.GetConfiguration().UnmarshalTo(text); err != nil {
		t.Fatal(err)
	}
	filter := strings.TrimPrefix(c.GetName(), "marchproxy.")
	if why := filterconfig.Refused(filter, []byte(text.GetValue())); why != "" {
		t.Errorf("%s: the filter refuses it: %s\n%.2000s", r.Name, why, text.GetValue())
	}
}

func packed(m protoreflect.Message, found func(*anypb.Any)) {
	visit := func(m protoreflect.Message) {
		if a, ok := m.Interface().(*anypb.Any); ok {
			found(a)
			return
		}
		packed(m, found)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { visit(v.Message()); return true })
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				visit(v.List().Get(i).Message())
			}
		default:
			visit(v.Message())
		}
		return true
	})
}
