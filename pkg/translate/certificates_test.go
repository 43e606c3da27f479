package translate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// signer makes certificates that sign themselves.
type signer struct {
	t   testing.TB
	key *ecdsa.PrivateKey
	pem string
}

func newSigner(t testing.TB) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer{t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))}
}

// issue makes one that names gateways and listeners as the form does.
func (s signer) issue(name string, form *configv1.Certificate, names ...string) *resource.Object {
	s.t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(rand.Int64()), Subject: pkix.Name{CommonName: names[0]},
		DNSNames: names,
	}
	der, err := x509.CreateCertificate(crand.Reader, tmpl, tmpl, s.key.Public(), s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	c := proto.CloneOf(form)
	c.Chain, c.PrivateKey = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), s.pem
	return s.object(resource.KindCertificate, name, c)
}

func (s signer) object(kind, name string, m proto.Message) *resource.Object {
	s.t.Helper()
	o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

// TestCertificatesOneByOne: certificates with many names come, change and go, most of them naming the gateway and some
// listed by it; what was built step by step is what is built at once, secrets, carriers and listeners.
func TestCertificatesOneByOne(t *testing.T) {
	s := newSigner(t)
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 9))
		st, b := config.New(), builder(resource.DefaultGateway)
		listed := map[string]bool{"c0": true}
		apply := func(o *resource.Object) {
			changes, _ := st.Apply([]*resource.Object{o})
			b.Update(st, changes, b.Policies())
		}
		for step := range 150 {
			name := fmt.Sprint("c", r.IntN(30))
			form := &configv1.Certificate{}
			switch r.IntN(4) {
			case 0, 1:
				form.Gateways = []string{resource.DefaultGateway}
			case 2:
				form.Listeners = []string{[]string{"a", "b"}[r.IntN(2)]}
			}
			names := make([]string, 1+r.IntN(12))
			for i := range names {
				names[i] = fmt.Sprintf("n%d.%s", r.IntN(200), []string{"x", "y", "z.x"}[r.IntN(3)])
			}
			if r.IntN(6) == 0 {
				names[0] = []string{"*.x", "*.y", "*.z.x"}[r.IntN(3)]
			}
			switch r.IntN(5) {
			case 0:
				apply(resource.Tombstone(resource.Ref{Kind: resource.KindCertificate, Name: name}, 1))
			case 1:
				listed[name] = !listed[name]
				fallthrough
			case 2:
				g := &configv1.Gateway{}
				for i, l := range []string{"a", "b"} {
					x := &configv1.Listener{Name: l, Port: uint32(i + 1), Protocol: configv1.Listener_https}
					for i := range 30 {
						if c := fmt.Sprint("c", i); listed[c] && (l == "a" || r.IntN(2) == 0) {
							x.Certificates = append(x.Certificates, c)
						}
					}
					g.Listeners = append(g.Listeners, x)
				}
				apply(s.object(resource.KindGateway, resource.DefaultGateway, g))
			default:
				apply(s.issue(name, form, names...))
			}
			if step%10 == 9 {
				again, fresh := config.New(), builder(resource.DefaultGateway)
				for o := range st.All {
					again.Apply([]*resource.Object{o})
				}
				fresh.Rebuild(again)
				same(t, fmt.Sprint("seed ", seed, " step ", step), b, fresh)
				for x := range fresh.All() {
					if y := b.Get(x.Key); y != nil && (y.Carrier != x.Carrier || y.ByName != x.ByName) {
						t.Errorf("%s is carried by %q instead of %q", x.Name, y.Carrier, x.Carrier)
					}
				}
				if d, _ := b.Rebuild(st); len(d.Upserts)+len(d.Removes) > 0 {
					t.Errorf("building everything again changes %d", len(d.Upserts)+len(d.Removes))
				}
				if t.Failed() {
					return
				}
			}
		}
	}
}

// TestDrainsOfCertificates: what a certificate drains that comes, changes or goes, whether a listener lists it or it
// names the listener.
func TestDrainsOfCertificates(t *testing.T) {
	s := newSigner(t)
	named, other := &configv1.Certificate{Gateways: []string{resource.DefaultGateway}}, &configv1.Certificate{
		Listeners: []string{"two"},
	}
	gateway := func(one ...string) *resource.Object {
		return s.object(resource.KindGateway, resource.DefaultGateway, &configv1.Gateway{Listeners: []*configv1.Listener{
			{Name: "one", Port: 1, Protocol: configv1.Listener_https, Certificates: one},
			{Name: "two", Port: 2, Protocol: configv1.Listener_https, Certificates: []string{"first"}},
		}})
	}
	gone := func(name string) *resource.Object {
		return resource.Tombstone(resource.Ref{Kind: resource.KindCertificate, Name: name}, 1)
	}
	first := s.issue("first", named, "first.test")
	below := s.issue("below", named, "below.wild.test")
	wild := s.issue("wild", named, "*.wild.test")
	for _, c := range []struct {
		what          string
		before, write []*resource.Object
		want          []string // listener, chains, object and fields
	}{
		{"a name comes", []*resource.Object{gateway("first"), first}, []*resource.Object{below}, nil},
		{"a name goes", []*resource.Object{gateway("first"), first, below}, []*resource.Object{gone("below")}, nil},
		{"a wildcard comes", []*resource.Object{gateway("first"), first, below}, []*resource.Object{wild}, nil},
		{
			"a wildcard is renewed",
			[]*resource.Object{gateway("first"), first, wild},
			[]*resource.Object{s.issue("wild", named, "*.wild.test")},
			nil,
		},
		{
			"a wildcard goes",
			[]*resource.Object{gateway("first"), first, below, wild},
			[]*resource.Object{gone("wild")},
			[]string{
				"one [certificates/below certificates/wild] Certificate/wild [$]",
				"two [certificates/below certificates/wild] Certificate/wild [$]",
			},
		},
		{
			"a wildcard names one listener less",
			[]*resource.Object{gateway("first"), first, wild},
			[]*resource.Object{s.object(resource.KindCertificate, "wild", &configv1.Certificate{
				Chain: wild.Message().(*configv1.Certificate).GetChain(), PrivateKey: s.pem, Listeners: []string{"two"},
			})},
			[]string{"one [certificates/wild] Certificate/wild [$.gateways]"},
		},
		{
			"a wildcard loses its name",
			[]*resource.Object{gateway("first"), first, wild},
			[]*resource.Object{s.issue("wild", named, "exact.test")},
			[]string{"one [certificates/wild] Certificate/wild [$.chain]", "two [certificates/wild] Certificate/wild [$.chain]"},
		},
		{
			"a wildcard is taken off the list",
			[]*resource.Object{gateway("first", "wild"), first, s.issue("wild", &configv1.Certificate{}, "*.wild.test")},
			[]*resource.Object{gateway("first")},
			[]string{"one [certificates/wild] Gateway/default [$.listeners[0].certificates]"},
		},
		{"a wildcard moves from the list", []*resource.Object{
			gateway("first", "wild"), first,
			s.issue("wild", &configv1.Certificate{}, "*.wild.test"),
		}, []*resource.Object{gateway("first"), wild}, nil},
		{
			"the default of a listener without a list",
			[]*resource.Object{gateway(), first, s.issue("a", other, "a.test")},
			[]*resource.Object{s.issue("b", named, "b.test")},
			[]string{"one [first] Certificate/b [$.chain]"},
		},
		{
			"a name that two listeners serve differently",
			[]*resource.Object{gateway("first"), first},
			[]*resource.Object{s.issue("a", other, "a.test")},
			nil,
		},
	} {
		st := config.New()
		st.Apply(c.before)
		before := translate.Before(st, c.write)
		changes, _ := st.Apply(c.write)
		var got []string
		for _, d := range before.Drains(st, changes) {
			got = append(got, fmt.Sprint(d.Listener, " ", d.Chains, " ", d.Object, " ", d.Fields))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: drains %q, want %q", c.what, got, c.want)
		}
	}
}

// certified is a state with so many certificates of one name each that name the gateway, and its builder.
func certified(s signer, n int) (*config.State, *translate.Builder) {
	st, b := config.New(), builder(resource.DefaultGateway)
	g := &configv1.Gateway{Listeners: []*configv1.Listener{
		{Name: "http", Port: 1}, {Name: "https", Port: 2, Protocol: configv1.Listener_https, Certificates: []string{"first"}},
	}}
	objects := []*resource.Object{
		s.object(resource.KindGateway, resource.DefaultGateway, g),
		s.issue("first", &configv1.Certificate{}, "first.test"),
	}
	for i := range n {
		objects = append(objects, s.issue(fmt.Sprint("c", i),
			&configv1.Certificate{Gateways: []string{resource.DefaultGateway}}, fmt.Sprintf("c%d.test", i)))
	}
	changes, _ := st.Apply(objects)
	b.Update(st, changes, b.Policies())
	return st, b
}

// forms are a certificate that comes, gets another content where that is a write of it alone, and goes, named or
// listed with all others; each write is checked as the api does.
func forms(tb testing.TB, s signer, n int) map[string]func() {
	tb.Helper()
	st, b := certified(s, n)
	change := func(objects ...*resource.Object) {
		before := translate.Before(st, objects)
		changes, _ := st.Apply(objects)
		if p := append(st.Check(changes), translate.Check(st, changes)...); len(p) > 0 {
			tb.Fatal(p)
		}
		if d := before.Drains(st, changes); len(d) > 0 {
			tb.Fatal(d)
		}
		b.Update(st, changes, b.Policies())
	}
	list := []string{"first"}
	for i := range n {
		list = append(list, fmt.Sprint("c", i))
	}
	gateway := func(list []string) *resource.Object {
		return s.object(resource.KindGateway, resource.DefaultGateway, &configv1.Gateway{Listeners: []*configv1.Listener{
			{Name: "http", Port: 1}, {Name: "https", Port: 2, Protocol: configv1.Listener_https, Certificates: list},
		}})
	}
	change(gateway(list))
	form := &configv1.Certificate{Gateways: []string{resource.DefaultGateway}}
	one, other := s.issue("new", form, "new.test"), s.issue("new", form, "new.test")
	gone := resource.Tombstone(one.Ref(), 1)
	listed := s.issue("listed", &configv1.Certificate{}, "listed.test")
	with, without := gateway(append(slices.Clone(list), "listed")), gateway(list)
	return map[string]func(){
		"named":  func() { change(one); change(other); change(gone) },
		"listed": func() { change(listed, with); change(without) },
	}
}

// TestCostOfACertificate: a certificate that comes, changes and goes costs what it costs beside few others, and of a
// list that is written no more than a comparison.
func TestCostOfACertificate(t *testing.T) {
	s := newSigner(t)
	few, many := forms(t, s, 300), forms(t, s, 6000)
	for name := range few {
		shortest := func(f func()) time.Duration {
			best := time.Hour
			for range 30 {
				begin := time.Now()
				f()
				best = min(best, time.Since(begin))
			}
			return best
		}
		x, y := testing.AllocsPerRun(10, few[name]), testing.AllocsPerRun(10, many[name])
		if y > 1.1*x {
			t.Errorf("%s: %.0f allocations, beside few others %.0f", name, y, x)
		}
		if x, y := shortest(few[name]), shortest(many[name]); y > 3*x {
			t.Errorf("%s: %v, beside few others %v", name, y, x)
		}
	}
}

// BenchmarkCertificate is the same as a figure.
func BenchmarkCertificate(b *testing.B) {
	s := newSigner(b)
	for _, n := range []int{1000, 10000} {
		for name, f := range forms(b, s, n) {
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					f()
				}
			})
		}
	}
}
