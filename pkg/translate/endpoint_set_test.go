package translate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// endpointSet is one of the service s; a host with a minus before it drains, and without hosts the set is deleted.
func endpointSet(t *testing.T, name string, hosts ...string) *resource.Object {
	t.Helper()
	ref := resource.Ref{Kind: resource.KindEndpointSet, Name: name}
	if hosts == nil {
		return resource.Tombstone(ref, 9)
	}
	s := &configv1.EndpointSet{Service: "s"}
	for _, h := range hosts {
		e := &configv1.FoundEndpoint{Port: 80}
		var drains bool
		if e.Host, drains = strings.CutPrefix(h, "-"); drains {
			e.State = configv1.FoundEndpoint_draining
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	o, err := resource.New(ref, s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestEndpointSetsChangeEndpointsAlone: whatever happens to a set, Envoys get the service's endpoints and nothing else,
// and those are what the service and its sets have together.
func TestEndpointSetsChangeEndpointsAlone(t *testing.T) {
	n := newNamed(t)
	n.service("http") // none of its own
	for _, c := range []struct {
		set   *resource.Object
		hosts string
	}{
		{endpointSet(t, "a", "192.0.2.1"), "1"},
		{endpointSet(t, "b", "192.0.2.2", "192.0.2.3"), "1 2 3"},
		{endpointSet(t, "b", "192.0.2.2", "-192.0.2.3"), "1 2 -3"},
		{endpointSet(t, "a", "-192.0.2.1"), "2"}, // Envoy would take one healthy of three for a panic
		{endpointSet(t, "c", "192.0.2.4", "192.0.2.5", "192.0.2.2"), "-1 2 -3 4 5"},
		{endpointSet(t, "c", "-192.0.2.2"), ""}, // one says that it drains, and so it does
		{endpointSet(t, "c"), "2"},
		{endpointSet(t, "a"), "2 -3"},
		{endpointSet(t, "b", "-192.0.2.2"), ""},
		{endpointSet(t, "b"), ""},
	} {
		was := n.endpoints()
		changes, _ := n.st.Apply([]*resource.Object{c.set})
		d, problems := n.b.Update(n.st, changes, n.b.Policies())
		if len(problems) > 0 || len(d.Removes) > 0 {
			t.Fatalf("%v: %v, removes %v", c.set.Ref(), problems, d.Removes)
		}
		for _, r := range d.Upserts {
			if (r.Key != translate.Key{Type: translate.TypeEndpoint, Name: "s"}) {
				t.Errorf("%v changes %v", c.set.Ref(), r.Key)
			}
		}
		if got := n.endpoints(); got != c.hosts {
			t.Errorf("%v: the endpoints are %q, want %q", c.set.Ref(), got, c.hosts)
		} else if got != was && len(d.Upserts) != 1 {
			t.Errorf("%v: %d resources", c.set.Ref(), len(d.Upserts))
		}
	}
}

// endpoints are those of the service s by the ends of their addresses, with a minus where they drain.
func (n *named) endpoints() string {
	n.t.Helper()
	var cla endpointv3.ClusterLoadAssignment
	if err := n.b.Get(translate.Key{Type: translate.TypeEndpoint, Name: "s"}).Body.UnmarshalTo(&cla); err != nil {
		n.t.Fatal(err)
	}
	type end struct {
		address string
		drains  bool
	}
	var all []end
	for _, l := range cla.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			a := e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
			all = append(all, end{strings.TrimPrefix(a, "192.0.2."), e.GetHealthStatus().String() == "DRAINING"})
		}
	}
	slices.SortFunc(all, func(a, b end) int { return strings.Compare(a.address, b.address) })
	var out []string
	for _, e := range all {
		out = append(out, map[bool]string{true: "-"}[e.drains]+e.address)
	}
	return strings.Join(out, " ")
}

// TestEndpointSetsOfWhom: a change builds the service that it is of, and not the others, however many sets there are.
func TestEndpointSetsOfWhom(t *testing.T) {
	n := newNamed(t)
	for i := range 100 {
		n.apply(endpointSet(t, fmt.Sprint("s-", i), "192.0.2."+fmt.Sprint(i+2)))
	}
	o, err := resource.New(resource.Ref{Kind: resource.KindService, Name: "other"}, &configv1.Service{})
	if err != nil {
		t.Fatal(err)
	}
	n.apply(o)
	if got := len(n.st.EndpointSetsOf("s")); got != 100 {
		t.Errorf("%d sets", got)
	}
	moved, err := resource.New(resource.Ref{Kind: resource.KindEndpointSet, Name: "s-7"}, &configv1.EndpointSet{
		Service: "other", Endpoints: []*configv1.FoundEndpoint{{Host: "192.0.2.9", Port: 80}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.apply(moved)
	if a, b := len(n.st.EndpointSetsOf("s")), len(n.st.EndpointSetsOf("other")); a != 99 || b != 1 {
		t.Errorf("%d and %d sets after one has moved", a, b)
	}
	if got := n.endpoints(); strings.Contains(" "+got+" ", " 9 ") {
		t.Errorf("the endpoint that has moved is still served: %s", got)
	}
	changes, _ := n.st.Apply([]*resource.Object{
		resource.Tombstone(resource.Ref{Kind: resource.KindService, Name: "other"}, 9),
	})
	if p := n.st.Check(changes); len(p) != 1 || p[0].Rule != "reference.in_use" {
		t.Errorf("deleting a service that a set adds to: %v", p)
	}
	if k := config.KindOf(resource.KindEndpointSet); !k.Found || !k.Traffic {
		t.Error("an EndpointSet is not what was found, or not for editors")
	}
}
