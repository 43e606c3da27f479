package translate_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// located puts the service s with endpoints, each "CLOUD/REGION/ZONE" with its address's end, and what it says of
// places.
func (n *named) located(p *configv1.LocalityPolicy, endpoints ...string) {
	n.t.Helper()
	s := &configv1.Service{Locality: p}
	for i, e := range endpoints {
		at := placeOf(e)
		s.Endpoints = append(s.Endpoints, &configv1.Endpoint{
			Host: fmt.Sprint("192.0.2.", i+1), Port: 80, Cloud: at.Cloud, Region: at.Region, Zone: at.Zone,
		})
	}
	o, err := resource.New(resource.Ref{Kind: resource.KindService, Name: "s"}, s)
	if err != nil {
		n.t.Fatal(err)
	}
	n.apply(o)
}

func placeOf(text string) locality.Place {
	parts := append(strings.Split(text, "/"), "", "")
	return locality.Place{Cloud: parts[0], Region: parts[1], Zone: parts[2]}
}

// levels are the ends of the addresses that an Envoy at a place has of the service s, a list for each priority, and the
// weights of the localities where there are some.
func (n *named) levels(from string) string {
	n.t.Helper()
	r := n.b.Get(translate.Key{Type: translate.TypeEndpoint, Name: "s"}).At(placeOf(from))
	var cla endpointv3.ClusterLoadAssignment
	if err := r.Body.UnmarshalTo(&cla); err != nil {
		n.t.Fatal(err)
	}
	out := map[uint32][]string{}
	for _, l := range cla.GetEndpoints() {
		weight := ""
		if w := l.GetLoadBalancingWeight(); w != nil {
			weight = fmt.Sprintf("(%d)", w.GetValue())
		}
		for _, e := range l.GetLbEndpoints() {
			a := e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
			out[l.GetPriority()] = append(out[l.GetPriority()], strings.TrimPrefix(a, "192.0.2.")+weight)
		}
	}
	var text []string
	for i, p := range slices.Sorted(maps.Keys(out)) {
		if p != uint32(i) {
			n.t.Errorf("priorities %v have a gap", slices.Sorted(maps.Keys(out)))
		}
		slices.Sort(out[p])
		text = append(text, strings.Join(out[p], " "))
	}
	return strings.Join(text, " | ")
}

// TestLocalityPriorities: which endpoints an Envoy asks first, and which then, by where it is.
func TestLocalityPriorities(t *testing.T) {
	everywhere := []string{"aws/eu/a", "aws/eu/b", "aws/us/a", "gcp/eu/a", "own"}
	place := func(text string) *configv1.Locality {
		p := placeOf(text)
		return &configv1.Locality{Cloud: p.Cloud, Region: p.Region, Zone: p.Zone}
	}
	cost := func(from, to string, cents uint32) *configv1.LocalityCost {
		return &configv1.LocalityCost{From: place(from), To: place(to), Cost: cents}
	}
	share := func(of string, weight uint32) *configv1.LocalityShare {
		return &configv1.LocalityShare{Place: place(of), Weight: weight}
	}
	for what, c := range map[string]struct {
		policy *configv1.LocalityPolicy
		// want is what Envoys have by their places.
		want map[string]string
	}{
		"nothing is said": {nil, map[string]string{"": "1 2 3 4 5", "aws/eu/a": "1 2 3 4 5"}},
		"the nearest zone": {
			&configv1.LocalityPolicy{Prefer: configv1.LocalityPolicy_zone},
			map[string]string{
				"": "1 2 3 4 5", "aws/eu/a": "1 | 2 | 3 | 4 5", "aws/us/z": "3 | 1 2 | 4 5", "own": "5 | 1 2 3 4",
				"other": "1 2 3 4 5",
			},
		},
		"the nearest region": {
			&configv1.LocalityPolicy{Prefer: configv1.LocalityPolicy_region},
			map[string]string{"aws/eu/a": "1 2 | 3 | 4 5"},
		},
		"the nearest cloud, then in order": {
			&configv1.LocalityPolicy{
				Prefer: configv1.LocalityPolicy_cloud, Failover: []*configv1.Locality{place("own"), place("gcp")},
			},
			map[string]string{"aws/eu/a": "1 2 3 | 5 | 4", "gcp": "4 | 5 | 1 2 3", "": "5 | 4 | 1 2 3"},
		},
		"what is cheap": {
			&configv1.LocalityPolicy{Costs: []*configv1.LocalityCost{
				cost("aws", "own", 2), cost("", "gcp", 9), cost("own", "aws//a", 1),
			}},
			map[string]string{"aws/eu/a": "1 2 3 | 5 | 4", "own": "5 | 1 3 | 4 | 2", "gcp": "4 | 1 2 3 5"},
		},
		"shares": {
			&configv1.LocalityPolicy{
				Split:    []*configv1.LocalityShare{share("aws/us", 0), share("aws", 3), share("gcp", 1)},
				Failover: []*configv1.Locality{place("own")},
			},
			map[string]string{"": "1(375000) 2(375000) 4(250000) | 5(1000000) | 3(1000000)"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			n := newNamed(t)
			n.located(c.policy, everywhere...)
			for from, want := range c.want {
				if got := n.levels(from); got != want {
					t.Errorf("from %q: %s, want %s", from, got, want)
				}
			}
		})
	}
}

// TestLocalityVersions: what becomes of a service is the same resource for all Envoys at a place, and for those at
// another one where it comes to the same; another policy is another version wherever it may differ.
func TestLocalityVersions(t *testing.T) {
	n := newNamed(t)
	get := func() *translate.Resource { return n.b.Get(translate.Key{Type: translate.TypeEndpoint, Name: "s"}) }
	n.located(&configv1.LocalityPolicy{Prefer: configv1.LocalityPolicy_zone}, "aws/eu/a", "aws/eu/b", "gcp")
	r := get()
	a, b := placeOf("aws/eu/a"), placeOf("aws/eu/b")
	if again := r.At(a); r.At(a) != again || r.At(placeOf("x")) != r.At(placeOf("y")) {
		t.Error("what is the same is made twice")
	}
	if r.At(a).Version == r.At(b).Version || r.At(a).Version == r.Version {
		t.Error("two places have one version of what differs")
	}
	if !r.Is(r.At(b).Version) || r.Is("another") {
		t.Error("it is not known which versions are its own")
	}
	n.located(&configv1.LocalityPolicy{Prefer: configv1.LocalityPolicy_cloud}, "aws/eu/a", "aws/eu/b", "gcp")
	if now := get(); now.Same(r) || now.At(a).Version == r.At(a).Version {
		t.Error("another policy has the same version")
	}
	n.located(nil, "aws/eu/a", "aws/eu/b", "gcp")
	if now := get(); now.Located != nil || now.At(a) != now {
		t.Error("without a policy it matters where an Envoy is")
	}
}

// TestLocalityByLatency: places come in the order of what the Envoys at a place have measured, by classes of those as
// near; within one the other fields decide, and while nothing is measured they alone. An order that is the same is the
// same version, whatever was measured.
func TestLocalityByLatency(t *testing.T) {
	measured := map[locality.Place]locality.Latencies{}
	n := newNamed(t)
	n.b = translate.NewBuilder(resource.DefaultGateway, translate.Options{
		Resolve: n.resolve, Measured: func(string) map[locality.Place]locality.Latencies { return measured },
	})
	n.b.Rebuild(n.st)
	says := func(from string, ms ...float64) {
		measured[placeOf(from)] = locality.Latencies{}
		for i, x := range ms {
			if x > 0 {
				measured[placeOf(from)][placeOf([]string{"aws/eu/a", "aws/eu/b", "gcp"}[i])] = x
			}
		}
	}
	pushed := func() int { return len(n.b.Reordered(n.st, []string{"s"}).Upserts) }
	want := func(what, from, levels string) {
		t.Helper()
		if got := n.levels(from); got != levels {
			t.Errorf("%s, from %q: %s, want %s", what, from, got, levels)
		}
	}
	latency := &configv1.LocalityLatency{}
	n.located(&configv1.LocalityPolicy{Latency: latency}, "aws/eu/a", "aws/eu/b", "gcp")
	want("nothing is measured", "aws/eu/a", "1 2 3")
	says("aws/eu/a", 20, 21, 2)
	if pushed() != 1 {
		t.Error("another order is not built")
	}
	want("measured", "aws/eu/a", "3 | 1 2")
	want("measured elsewhere", "gcp", "1 2 3")
	says("aws/eu/a", 22, 19, 1)
	if n := pushed(); n != 0 {
		t.Errorf("the same order by other latencies is %d resources", n)
	}
	says("aws/eu/a", 90, 0, 10)
	pushed()
	want("one is not measured", "aws/eu/a", "3 | 1 | 2")

	prefer := &configv1.LocalityPolicy{Prefer: configv1.LocalityPolicy_zone, Latency: latency}
	n.located(prefer, "aws/eu/a", "aws/eu/b", "gcp")
	says("aws/eu/a", 3, 2, 1)
	pushed()
	want("all are as near", "aws/eu/a", "1 | 2 | 3")
	says("aws/eu/a", 30, 2, 1)
	pushed()
	want("the own zone is slow", "aws/eu/a", "2 | 3 | 1")
	clear(measured)
	pushed()
	want("nothing is measured any more", "aws/eu/a", "1 | 2 | 3")

	cheapest := &configv1.LocalityPolicy{
		Latency: &configv1.LocalityLatency{Within: durationpb.New(20 * time.Millisecond)},
		Costs:   []*configv1.LocalityCost{{To: &configv1.Locality{Cloud: "gcp"}, Cost: 1}, {Cost: 2}},
	}
	n.located(cheapest, "aws/eu/a", "aws/eu/b", "gcp")
	says("aws/eu/a", 1, 30, 20)
	pushed()
	want("the cheapest within 20 ms of the nearest", "aws/eu/a", "3 | 1 | 2")
}

// TestWhatIsMeasured: the runtime says by what request a service is measured that is ordered by latency and has a
// route, and no more than there may be.
func TestWhatIsMeasured(t *testing.T) {
	n := newNamed(t)
	layer := func() (out []string) {
		t.Helper()
		var r runtimev3.Runtime
		key := translate.Key{Type: translate.TypeRuntime, Name: bootstrap.RuntimeLayer}
		if err := n.b.Get(key).Body.UnmarshalTo(&r); err != nil {
			t.Fatal(err)
		}
		for k, v := range r.GetLayer().GetFields() {
			if service, is := strings.CutPrefix(k, bootstrap.RuntimeLatency); is {
				out = append(out, service+": "+v.GetStringValue())
			}
		}
		slices.Sort(out)
		return out
	}
	put := func(name string, h *configv1.HttpCheck, p *configv1.LocalityPolicy) {
		t.Helper()
		o, err := resource.New(resource.Ref{Kind: resource.KindService, Name: name}, &configv1.Service{
			Endpoints:   []*configv1.Endpoint{{Host: "192.0.2.1", Port: 80}},
			HealthCheck: &configv1.HealthCheck{Check: &configv1.HealthCheck_Http{Http: h}}, Locality: p,
		})
		if err != nil {
			t.Fatal(err)
		}
		n.apply(o)
	}
	soon := &configv1.LocalityPolicy{Latency: &configv1.LocalityLatency{}}
	put("unused", &configv1.HttpCheck{}, soon)
	put("s", &configv1.HttpCheck{}, nil)
	if got := layer(); got != nil {
		t.Errorf("without a policy, or a route: %q", got)
	}
	put("s", &configv1.HttpCheck{}, soon)
	if got := layer(); !slices.Equal(got, []string{"s: / s"}) {
		t.Errorf("with one: %q", got)
	}
	put("s", &configv1.HttpCheck{Path: "/healthz", Host: "x.test"}, soon)
	if got := layer(); !slices.Equal(got, []string{"s: /healthz x.test"}) {
		t.Errorf("with another check: %q", got)
	}
	n.apply(resource.Tombstone(resource.Ref{Kind: resource.KindRoute, Name: "r"}, 9))
	if got := layer(); got != nil {
		t.Errorf("without its route: %q", got)
	}
	var backends []*configv1.Backend
	for i := range 130 {
		name := fmt.Sprintf("m-%03d", i)
		put(name, &configv1.HttpCheck{}, soon)
		backends = append(backends, &configv1.Backend{Service: name})
	}
	o, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: "r"}, &configv1.Route{Backends: backends})
	if err != nil {
		t.Fatal(err)
	}
	n.apply(o)
	if got := layer(); len(got) != 100 || got[99] != "m-099: / m-099" {
		t.Errorf("%d of 130: %q", len(got), got)
	}
}

// TestCostOfForms: 5,000 Envoys in 12 zones cost 12 forms of a service with 1,000 endpoints, and a look each.
func TestCostOfForms(t *testing.T) {
	const envoys, zones = 5000, 12
	n := newNamed(t)
	s := &configv1.Service{Locality: &configv1.LocalityPolicy{Prefer: configv1.LocalityPolicy_zone}}
	zone := func(i int) string { return fmt.Sprint("zone-", i%zones) }
	for i := range 1000 {
		s.Endpoints = append(s.Endpoints, &configv1.Endpoint{
			Host: fmt.Sprintf("192.0.%d.%d", i/250, i%250), Port: 80, Cloud: "aws", Region: "eu", Zone: zone(i),
		})
	}
	o, err := resource.New(resource.Ref{Kind: resource.KindService, Name: "s"}, s)
	if err != nil {
		t.Fatal(err)
	}
	n.apply(o)
	r := n.b.Get(translate.Key{Type: translate.TypeEndpoint, Name: "s"})
	forms := map[*translate.Resource]bool{}
	began := time.Now()
	for i := range envoys {
		forms[r.At(locality.Place{Cloud: "aws", Region: "eu", Zone: zone(i)})] = true
	}
	t.Logf("%d forms for %d Envoys after %v", len(forms), envoys, time.Since(began))
	if len(forms) != zones {
		t.Errorf("%d forms for %d zones", len(forms), zones)
	}
}

// TestLocalityDrain: a place that is drained has no endpoints, for services and for sets, unless a service would be
// left with nothing; and nothing but endpoints is built again.
func TestLocalityDrain(t *testing.T) {
	n := newNamed(t)
	n.located(nil, "aws/eu/a", "aws/eu/b", "own//paris")
	n.apply(endpointSet(t, "found", "192.0.2.9"))
	drain := func(name, at string) {
		t.Helper()
		o := resource.Tombstone(resource.Ref{Kind: resource.KindLocalityDrain, Name: name}, 9)
		if p := placeOf(at); at != "" {
			spec := &configv1.LocalityDrain{Cloud: p.Cloud, Region: p.Region, Zone: p.Zone}
			var err error
			if o, err = resource.New(o.Ref(), spec); err != nil {
				t.Fatal(err)
			}
		}
		changes, _ := n.st.Apply([]*resource.Object{o})
		d, problems := n.b.Update(n.st, changes, n.b.Policies())
		if len(problems) > 0 || len(d.Removes) > 0 {
			t.Fatal(problems, d.Removes)
		}
		for _, r := range d.Upserts {
			if r.Type != translate.TypeEndpoint {
				t.Errorf("a drain changes %v", r.Key)
			}
		}
	}
	for _, c := range []struct{ name, at, want string }{
		{"x", "aws/eu/a", "2 3 9"},
		{"y", "own", "2 9"},
		{"x", "aws", "9"},
		{"x", "gcp", "1 2 9"},
		{"y", "", "1 2 3 9"},
		{"x", "//paris", "1 2 9"},
	} {
		drain(c.name, c.at)
		if got := n.levels(""); got != c.want {
			t.Errorf("%s drains %q: %s, want %s", c.name, c.at, got, c.want)
		}
	}
	n.apply(endpointSet(t, "found", "-192.0.2.9"))
	drain("y", "aws")
	if got := n.levels(""); got != "1 2 3 9" { // 9 as one that drains: Envoy does not ask it
		t.Errorf("all are drained, or drain: %q", got)
	}
}
