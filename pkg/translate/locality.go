package translate

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/locality"
)

// localEndpoints are those of one place and one priority that somebody gave them.
type localEndpoints struct {
	place
	endpoints []*endpointv3.LbEndpoint
}

// assignment makes Envoy's priorities and locality weights of what a service says of places, for an Envoy at a place.
type assignment struct {
	cluster string
	policy  *configv1.LocalityPolicy
	groups  []localEndpoints
	// nearness numbers the places by what was measured, for each place with Envoys that have measured; nil without.
	nearness map[locality.Place]map[locality.Place]int
}

// near says whether Envoys at different places get different assignments.
func (a assignment) near() bool {
	return a.policy.GetPrefer() != configv1.LocalityPolicy_NEAR_UNSPECIFIED || len(a.policy.GetCosts()) > 0 ||
		a.policy.GetLatency() != nil
}

// Nearness numbers places by what was measured and what a service says of that ([locality.Latencies.Nearness]).
func Nearness(l *configv1.LocalityLatency, measured locality.Latencies) map[locality.Place]int {
	percent := float64(orNumber(l.GetWithinPercent(), 25))
	return measured.Nearness(orElse(l.GetWithin(), 5*time.Millisecond).AsDuration().Seconds()*1000, percent)
}

// measure orders places by what the Envoys at each place have measured.
func (a *assignment) measure(by map[locality.Place]locality.Latencies) {
	if a.policy.GetLatency() == nil {
		return
	}
	a.nearness = map[locality.Place]map[locality.Place]int{}
	for from, measured := range by {
		a.nearness[from] = Nearness(a.policy.GetLatency(), measured)
	}
}

// at is the assignment for an Envoy at a place, the zero one for an Envoy that does not say where it is.
func (a assignment) at(from locality.Place) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: a.cluster}
	if f := a.policy.GetOverprovisioningFactor(); f > 0 {
		out.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(f)}
	}
	groups := a.groups
	if a.policy != nil {
		groups = a.leveled(from)
	}
	for _, g := range groups {
		out.Endpoints = append(out.Endpoints, &endpointv3.LocalityLbEndpoints{
			Priority: g.priority, LbEndpoints: g.endpoints, Locality: envoyLocality(g.Place),
		})
	}
	if split(a.policy) {
		a.weigh(out.Endpoints)
	}
	return out
}

// envoyLocality is a place as Envoy has it; nil where nothing is known of it.
func envoyLocality(p locality.Place) *corev3.Locality {
	if p == (locality.Place{}) {
		return nil
	}
	return &corev3.Locality{Region: p.EnvoyRegion(), Zone: p.Zone}
}

// maxLevel is the last priority that Envoy knows.
const maxLevel = 128

// leveled are the groups in the order and with the priorities that an Envoy at a place has of them.
func (a assignment) leveled(from locality.Place) []localEndpoints {
	type ranked struct {
		localEndpoints
		precedence precedence
	}
	all := make([]ranked, len(a.groups))
	for i, g := range a.groups {
		all[i] = ranked{g, a.precedence(g.place, from)}
	}
	slices.SortStableFunc(all, func(x, y ranked) int {
		return cmp.Or(slices.Compare(x.precedence[:], y.precedence[:]), x.Place.Compare(y.Place))
	})
	var out []localEndpoints
	level := uint32(0)
	for i, x := range all {
		if i > 0 && x.precedence != all[i-1].precedence && level < maxLevel {
			level++
		}
		x.priority = level
		if n := len(out); level == maxLevel && n > 0 && out[n-1].place == x.place { // Envoy refuses a locality twice
			out[n-1].endpoints = slices.Concat(out[n-1].endpoints, x.endpoints)
			continue
		}
		out = append(out, x.localEndpoints)
	}
	return out
}

// precedence is what places are ordered by: the priority that endpoints were given, whether they have no share of a
// split, how near they are by what was measured, how far by what is said, where they come in the failover, and what
// they cost.
type precedence [6]uint64

func (a assignment) precedence(to place, from locality.Place) precedence {
	r := precedence{uint64(to.priority)}
	if e, ok := entryOf(a.policy.GetSplit(), to.Place); ok && a.policy.GetSplit()[e].GetWeight() > 0 {
		return r
	}
	r[1] = 1
	if near := a.nearness[from]; len(near) > 0 {
		r[2] = uint64(len(near))
		if n, measured := near[to.Place]; measured {
			r[2] = uint64(n)
		}
	}
	d := from.Distance(to.Place)
	switch a.policy.GetPrefer() {
	case configv1.LocalityPolicy_zone:
		r[3] = uint64(d)
	case configv1.LocalityPolicy_region:
		r[3] = uint64(max(d, locality.SameRegion))
	case configv1.LocalityPolicy_cloud:
		r[3] = uint64(max(d, locality.SameCloud))
	}
	r[4] = uint64(len(a.policy.GetFailover()))
	for i, p := range a.policy.GetFailover() {
		if locality.Of(p).Has(to.Place) {
			r[4] = uint64(i)
			break
		}
	}
	if len(a.policy.GetCosts()) > 0 {
		r[5] = cost(a.policy.GetCosts(), from, to.Place)
	}
	return r
}

func cost(costs []*configv1.LocalityCost, from, to locality.Place) uint64 {
	for _, c := range costs {
		if locality.Of(c.GetFrom()).Has(from) && locality.Of(c.GetTo()).Has(to) {
			return uint64(c.GetCost())
		}
	}
	if from.Distance(to) <= locality.SameCloud {
		return 0
	}
	return math.MaxUint64
}

// split says whether a cluster's localities have weights.
func split(p *configv1.LocalityPolicy) bool { return len(p.GetSplit()) > 0 }

// entryOf is the first entry of a split that a place is in.
func entryOf(of []*configv1.LocalityShare, p locality.Place) (int, bool) {
	i := slices.IndexFunc(of, func(s *configv1.LocalityShare) bool { return locality.Of(s.GetPlace()).Has(p) })
	return i, i >= 0
}

// whole is what the weights of the localities of a priority come to, so that a share is a millionth at least, and
// Envoy's sum stays below its limit.
const whole = 1e6

// weigh gives localities their weights. To Envoy a locality without one gets nothing, so all of them have one: those
// without a share that of their endpoints. A share of several localities is theirs by the weights of their endpoints.
func (a assignment) weigh(all []*endpointv3.LocalityLbEndpoints) {
	const rest = -1
	type key struct {
		priority uint32
		entry    int
	}
	entry := func(l *endpointv3.LocalityLbEndpoints) key {
		i, ok := entryOf(a.policy.GetSplit(), locality.FromEnvoy(l.GetLocality()))
		if !ok || a.policy.GetSplit()[i].GetWeight() == 0 {
			i = rest
		}
		return key{l.GetPriority(), i}
	}
	endpoints := map[key]float64{} // their weights
	for _, l := range all {
		endpoints[entry(l)] += weightOf(l)
	}
	shares := map[uint32]float64{}
	for k := range endpoints {
		if k.entry != rest {
			shares[k.priority] += float64(a.policy.GetSplit()[k.entry].GetWeight())
		}
	}
	for _, l := range all {
		k := entry(l)
		w := whole * weightOf(l) / endpoints[k]
		if k.entry != rest {
			w *= float64(a.policy.GetSplit()[k.entry].GetWeight()) / shares[k.priority]
		}
		l.LoadBalancingWeight = wrapperspb.UInt32(max(uint32(math.Round(w)), 1))
	}
}

func weightOf(l *endpointv3.LocalityLbEndpoints) (sum float64) {
	for _, e := range l.GetLbEndpoints() {
		sum += float64(max(e.GetLoadBalancingWeight().GetValue(), 1))
	}
	return sum
}

// Located is what Envoys at different places get in place of a resource. It is made for a place when the first Envoy
// there is sent it, so that a change costs nothing for places without Envoys, and the same for all those at one place.
type Located struct {
	make func(locality.Place) *Resource
	// places are those of the endpoints, in order.
	places []locality.Place
	mu     sync.Mutex
	made   map[locality.Place]*Resource
}

// locate has Envoys at different places get different endpoints. The version of the resource is then one of all that
// these are made of: it is another where any of them may be.
func (a assignment) locate(r *Resource) {
	content := append(slices.Clone(r.Body.GetValue()), pack(a.policy).GetValue()...)
	for _, g := range a.groups {
		content = append(content, pack(&endpointv3.LocalityLbEndpoints{
			Priority: g.priority, Locality: envoyLocality(g.Place), LbEndpoints: g.endpoints,
		}).GetValue()...)
	}
	for _, from := range slices.SortedFunc(maps.Keys(a.nearness), locality.Place.Compare) {
		near := a.nearness[from]
		for _, to := range slices.SortedFunc(maps.Keys(near), locality.Place.Compare) {
			content = fmt.Appendf(content, "%q %q %d\n", from, to, near[to])
		}
	}
	r.Version = VersionOf(content)
	l := &Located{made: map[locality.Place]*Resource{}}
	l.make = func(p locality.Place) *Resource {
		out := newResource(r.Name, a.at(p), nil)
		out.Objects, out.Partial = r.Objects, r.Partial
		return out
	}
	for _, g := range a.groups {
		if g.Place != (locality.Place{}) {
			l.places = append(l.places, g.Place)
		}
	}
	slices.SortFunc(l.places, locality.Place.Compare)
	l.places = slices.Compact(l.places)
	r.Located = l
}

// Priority is what an Envoy has of a place's endpoints.
type Priority struct {
	locality.Place
	Priority uint32
}

// Priorities are those of the places of a service's endpoints for an Envoy at a place, in order; measured is what those
// there have measured. What DNS says of names is left aside.
func Priorities(st *config.State, service string, s *configv1.Service, from locality.Place,
	measured locality.Latencies,
) (out []Priority) {
	places := map[place][]*endpointv3.LbEndpoint{}
	for _, e := range s.GetEndpoints() {
		p := place{e.GetPriority(), locality.Of(e)}
		places[p] = append(places[p], &endpointv3.LbEndpoint{})
	}
	for _, set := range st.EndpointSetsOf(service) {
		for _, e := range set.Message().(*configv1.EndpointSet).GetEndpoints() {
			lb := &endpointv3.LbEndpoint{}
			if e.GetState() == configv1.FoundEndpoint_draining {
				lb.HealthStatus = corev3.HealthStatus_DRAINING
			}
			p := place{0, locality.Of(e)}
			places[p] = append(places[p], lb)
		}
	}
	(&view{st: st}).drain(places)
	keep(s, places)
	a := assignment{policy: s.GetLocality()}
	a.measure(map[locality.Place]locality.Latencies{from: measured})
	for p := range places {
		a.groups = append(a.groups, localEndpoints{place: p})
	}
	for _, g := range a.leveled(from) {
		out = append(out, Priority{g.Place, g.priority})
	}
	return out
}

// Places are those of the endpoints of a resource that is not the same everywhere.
func (r *Resource) Places() []locality.Place {
	if r.Located == nil {
		return nil
	}
	return r.Located.places
}

// At is a resource as Envoys at a place get it; itself where it is the same everywhere. It is safe for concurrent use.
func (r *Resource) At(p locality.Place) *Resource {
	if r == nil || r.Located == nil || p == (locality.Place{}) {
		return r
	}
	l := r.Located
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made[p] == nil {
		now := l.make(p)
		for _, other := range l.made { // two zones without endpoints, for instance
			if other.Version == now.Version {
				now = other
				break
			}
		}
		l.made[p] = now
	}
	return l.made[p]
}

// find is what was made for some place and has a version; nil where nothing has.
func (l *Located) find(version string) *Resource {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.made {
		if r.Version == version {
			return r
		}
	}
	return nil
}

// drain leaves out the endpoints of places that are drained. They are not told as draining: those would count as
// unhealthy, and requests would go to another priority for it. Where nothing would be left that takes requests, nowhere
// else is better, and all stay.
func (v *view) drain(places map[place][]*endpointv3.LbEndpoint) {
	all := v.st.Drained()
	if len(all) == 0 {
		return
	}
	drained := map[place]bool{}
	elsewhere := false
	for p, some := range places {
		drained[p] = slices.ContainsFunc(all, func(d locality.Place) bool { return d.Has(p.Place) })
		elsewhere = elsewhere || !drained[p] && slices.ContainsFunc(some, isReady)
	}
	for p := range drained {
		if elsewhere && drained[p] {
			delete(places, p)
		}
	}
}

// locality looks at what a service says of places.
func (k *checker) locality(s *configv1.Service) {
	p := s.GetLocality()
	if p.GetLatency() != nil && s.GetHealthCheck().GetHttp() == nil {
		k.add("$.locality.latency", "locality.latency", "is measured by the request of $.health_check.http, and there is "+
			"none; give one, or leave latency out")
	}
	if p.GetLatency() != nil && split(p) {
		k.add("$.locality.latency", "locality.split", "has the places that answer soonest take all requests, and split says "+
			"what each place takes; keep one")
	}
	places := func(field string, list []locality.Place) {
		for i, x := range list {
			if x == (locality.Place{}) {
				k.add(fmt.Sprintf("%s[%d]", field, i), "locality.place", "names no place; give cloud, region or zone")
				continue
			}
			for j, before := range list[:i] {
				if before != (locality.Place{}) && before.Has(x) {
					k.add(fmt.Sprintf("%s[%d]", field, i), "locality.place", "never counts: %s[%d] has all of it and comes first",
						strings.TrimPrefix(field, "$.locality."), j)
					break
				}
			}
		}
	}
	var order, shares []locality.Place
	for _, x := range p.GetFailover() {
		order = append(order, locality.Of(x))
	}
	weights := uint64(0)
	for _, x := range p.GetSplit() {
		shares = append(shares, locality.Of(x.GetPlace()))
		weights += uint64(x.GetWeight())
	}
	places("$.locality.failover", order)
	places("$.locality.split", shares)
	if split(p) && weights == 0 {
		k.add("$.locality.split", "locality.split", "has no weight at all; give at least one place a weight above 0")
	}
	if split(p) && p.GetPrefer() != configv1.LocalityPolicy_NEAR_UNSPECIFIED {
		k.add("$.locality.prefer", "locality.split", "has the nearest endpoints take all requests, and split says what each "+
			"place takes; keep one")
	}
	if len(p.GetFailover()) > 0 && len(p.GetCosts()) > 0 {
		k.add("$.locality.costs", "locality.order", "order the places, and so does failover; keep one")
	}
	if split(p) && len(p.GetCosts()) > 0 {
		k.add("$.locality.costs", "locality.split", "have the cheapest endpoints take all requests, and split says what "+
			"each place takes; keep one")
	}
	if f := p.GetOverprovisioningFactor(); f > 0 && f < 100 {
		k.add("$.locality.overprovisioning_factor", "locality.factor", "is below 100: another priority would take requests "+
			"while all endpoints are healthy")
	}
	for i, x := range p.GetCosts() {
		for j, before := range p.GetCosts()[:i] {
			if locality.Of(before.GetFrom()).Has(locality.Of(x.GetFrom())) &&
				locality.Of(before.GetTo()).Has(locality.Of(x.GetTo())) {
				k.add(fmt.Sprintf("$.locality.costs[%d]", i), "locality.place", "never counts: costs[%d] has all of it and comes "+
					"first", j)
				break
			}
		}
	}
}
