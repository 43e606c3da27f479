package servername_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// issuer makes chains, with one key of each kind.
type issuer map[string]crypto.Signer

func newIssuer(t testing.TB) issuer {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(crand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{"ecdsa": ec, "rsa": r}
}

func (i issuer) chain(t testing.TB, kind string, names ...string) string {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, DNSNames: names}
	der, err := x509.CreateCertificate(crand.Reader, tmpl, tmpl, i[kind].Public(), i[kind])
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func object(t testing.TB, kind, name string, m proto.Message) *resource.Object {
	t.Helper()
	o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// random makes configurations of few names, so that they meet.
type random struct {
	*rand.Rand
	t      testing.TB
	chains []material // without names of their own
}

var (
	serverNames  = []string{"x", "a.x", "b.x", "c.a.x", "d.c.a.x", "*.x", "*.a.x", "y", "a.y", "*.y", "z"}
	certNames    = []string{"c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"}
	gatewayNames = []string{resource.DefaultGateway, "edge"}
)

func newRandom(t testing.TB, i issuer, seed uint64) *random {
	r := &random{Rand: rand.New(rand.NewPCG(seed, 1)), t: t}
	for range 24 {
		kind := []string{"ecdsa", "ecdsa", "rsa"}[r.IntN(3)]
		names := r.some(serverNames, 3)
		spec := &configv1.Certificate{Chain: i.chain(t, kind, names...)}
		if len(names) == 0 {
			names = []string{"x"} // the common name, which counts where there is nothing else
		}
		r.chains = append(r.chains, material{kind: kind, names: names, spec: spec})
	}
	return r
}

// some are at most n of a list, each once.
func (r *random) some(in []string, n int) []string {
	var out []string
	for _, i := range r.Perm(len(in))[:r.IntN(n+1)] {
		out = append(out, in[i])
	}
	return out
}

func (r *random) certificate() (*resource.Object, material) {
	m := r.chains[r.IntN(len(r.chains))]
	m.name, m.created = certNames[r.IntN(len(certNames))], fmt.Sprint(r.IntN(3))
	m.spec = proto.CloneOf(m.spec)
	m.spec.Gateways, m.spec.Listeners = r.some(gatewayNames, 2), r.some([]string{"l0", "l1", "l2"}, 2)
	o := object(r.t, resource.KindCertificate, m.name, m.spec)
	o.CreatedAt = m.created
	return o, m
}

func (r *random) gateway() *resource.Object {
	g := &configv1.Gateway{}
	for i := range 1 + r.IntN(3) {
		l := &configv1.Listener{Name: fmt.Sprint("l", i), Port: uint32(i + 1), Certificates: r.some(certNames, 5)}
		if r.IntN(8) > 0 {
			l.Protocol = configv1.Listener_https
		}
		hosts := r.some(serverNames, 4)
		for len(hosts) > 0 && r.IntN(2) == 0 {
			n := 1 + r.IntN(len(hosts))
			l.ClientAuth = append(l.ClientAuth, &configv1.ClientAuth{
				Hosts:         hosts[:n],
				CaCertificate: []string{"ca", "cb"}[r.IntN(2)], Certificates: r.some(certNames, 1),
			})
			hosts = hosts[n:]
		}
		g.Listeners = append(g.Listeners, l)
	}
	return object(r.t, resource.KindGateway, gatewayNames[r.IntN(2)], g)
}

// mirror follows an index by what it says has changed.
type mirror struct {
	of       *servername.Index
	seen     uint64
	onDemand map[string]string
	versions map[string]uint64
	chains   map[string][]servername.Chain
	first    map[string][]string
}

func (m *mirror) follow(x *servername.Index) {
	names, ok := x.Since(m.seen)
	if !ok || x != m.of {
		*m = mirror{
			of: x, onDemand: map[string]string{}, versions: map[string]uint64{},
			chains: map[string][]servername.Chain{}, first: map[string][]string{},
		}
		names = slices.Collect(x.AllOnDemand)
	}
	m.seen = x.Now()
	for _, n := range names {
		if m.onDemand[n] = x.OnDemand(n); m.onDemand[n] == "" {
			delete(m.onDemand, n)
		}
	}
	for _, l := range x.Listeners() {
		if m.versions[l.Name()] != l.Version() {
			m.versions[l.Name()], m.chains[l.Name()], m.first[l.Name()] = l.Version(), l.Chains(), l.First()
		}
	}
}

// TestIndexIsWhatTheRulesSay: after random changes of certificates and gateways, some taken back, what the index has
// kept up to date is what the rules say from scratch, an index made from scratch, and what a reader has that follows
// what the index says has changed; and a snapshot says which chains are gone.
func TestIndexIsWhatTheRulesSay(t *testing.T) {
	i := newIssuer(t)
	seeds := uint64(40)
	if racetest.Enabled { // four minutes, for code in which nothing is concurrent
		seeds = 2
	}
	for seed := range seeds {
		r := newRandom(t, i, seed)
		st := config.New()
		all := map[string]material{}
		mirrors := map[string]*mirror{}
		for _, g := range gatewayNames {
			mirrors[g] = &mirror{}
		}
		for step := range 120 {
			next := maps.Clone(all)
			var objects []*resource.Object
			seen := map[resource.Ref]bool{}
			for range 1 + r.IntN(3) {
				var o *resource.Object
				switch r.IntN(12) {
				case 0:
					o = resource.Tombstone(resource.Ref{Kind: resource.KindGateway, Name: gatewayNames[r.IntN(2)]}, 1)
				case 1, 2, 3:
					o = r.gateway()
				case 4, 5:
					o = resource.Tombstone(resource.Ref{Kind: resource.KindCertificate, Name: certNames[r.IntN(len(certNames))]}, 1)
				default:
					var m material
					if o, m = r.certificate(); !seen[o.Ref()] {
						next[o.Name] = m
					}
				}
				if seen[o.Ref()] {
					continue
				}
				if o.Deleted && o.Kind == resource.KindCertificate {
					delete(next, o.Name)
				}
				seen[o.Ref()] = true
				objects = append(objects, o)
			}
			before := map[string]map[string][]string{}
			snapshots := map[string]map[string]servername.Snapshot{}
			for _, g := range gatewayNames {
				before[g], snapshots[g] = map[string][]string{}, map[string]servername.Snapshot{}
				for _, l := range st.ServerNames(g).Listeners() {
					before[g][l.Name()], snapshots[g][l.Name()] = chainNames(l.Chains()), l.Snapshot()
				}
			}
			_, undo := st.Apply(objects)
			if r.IntN(4) == 0 {
				undo()
			} else {
				all = next
			}
			for _, g := range gatewayNames {
				x := st.ServerNames(g)
				check(t, st, g, x, all, mirrors[g])
				for name, chains := range before[g] {
					l := x.Listener(name)
					var now []string
					if l != nil {
						now = chainNames(l.Chains())
					}
					gone := slices.DeleteFunc(chains, func(c string) bool { return slices.Contains(now, c) })
					if got := snapshots[g][name].Gone(l); !slices.Equal(got, gone) {
						t.Errorf("gone are %v, want %v", got, gone)
					}
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
}

func chainNames(in []servername.Chain) (out []string) {
	for _, c := range in {
		out = append(out, c.Name)
	}
	return out
}

func check(t *testing.T, st *config.State, gateway string, x *servername.Index, all map[string]material, m *mirror) {
	t.Helper()
	wants, onDemand := reference(st, gateway, all)
	m.follow(x)
	var spec *configv1.Gateway
	if o := st.Get(resource.Ref{Kind: resource.KindGateway, Name: gateway}); o != nil {
		spec = o.Message().(*configv1.Gateway)
	}
	fresh := x.With(spec)
	for what, got := range map[string]map[string]string{
		"the index": of(x), "from scratch": of(fresh),
		"a reader": m.onDemand,
	} {
		if !maps.Equal(got, onDemand) {
			t.Errorf("%s: on demand are %v, want %v", what, got, onDemand)
		}
	}
	if len(x.Listeners()) != len(wants) {
		t.Fatalf("%d listeners, want %d", len(x.Listeners()), len(wants))
	}
	for i, w := range wants {
		l := x.Listeners()[i]
		var chains []servername.Chain
		for _, name := range slices.Sorted(maps.Keys(w.chains)) {
			chains = append(chains, *w.chains[name])
		}
		same := func(what string, got []servername.Chain, first []string) {
			if !reflect.DeepEqual(append(chains, servername.Chain{}), append(slices.Clip(got), servername.Chain{})) {
				t.Errorf("%s: %s has chains %v, want %v", what, l.Name(), got, chains)
			}
			if !slices.Equal(first, w.first) {
				t.Errorf("%s: %s begins with %v, want %v", what, l.Name(), first, w.first)
			}
		}
		same("the index", l.Chains(), l.First())
		same("from scratch", fresh.Listener(l.Name()).Chains(), fresh.Listener(l.Name()).First())
		same("a reader", m.chains[l.Name()], m.first[l.Name()])
	}
}

func of(x *servername.Index) map[string]string {
	out := map[string]string{}
	for n := range x.AllOnDemand {
		out[n] = x.OnDemand(n)
	}
	return out
}
