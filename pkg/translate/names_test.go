package translate_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// named is a gateway with one service, whose names a test resolves.
type named struct {
	t     *testing.T
	st    *config.State
	b     *translate.Builder
	names map[string][]string // pending where absent, without an address where empty
}

func newNamed(t *testing.T) *named {
	n := &named{t: t, st: config.New(), names: map[string][]string{}}
	n.b = translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: n.resolve})
	n.apply(gatewayObject(t))
	n.service("http", "192.0.2.1")
	o, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: "r"},
		&configv1.Route{Backends: []*configv1.Backend{{Service: "s"}}})
	if err != nil {
		t.Fatal(err)
	}
	n.apply(o)
	return n
}

func (n *named) resolve(host string) ([]netip.Addr, bool) {
	var out []netip.Addr
	texts, known := n.names[host]
	for _, x := range texts {
		out = append(out, netip.MustParseAddr(x))
	}
	return out, known
}

func (n *named) apply(o *resource.Object) {
	n.t.Helper()
	changes, _ := n.st.Apply([]*resource.Object{o})
	if _, problems := n.b.Update(n.st, changes, n.b.Policies()); len(problems) > 0 {
		n.t.Fatal(problems)
	}
}

// service puts it, with a protocol and hosts.
func (n *named) service(protocol string, hosts ...string) {
	n.t.Helper()
	s := &configv1.Service{Protocol: configv1.Service_Protocol(configv1.Service_Protocol_value[protocol])}
	for _, h := range hosts {
		s.Endpoints = append(s.Endpoints, &configv1.Endpoint{Host: h, Port: 80})
	}
	o, err := resource.New(resource.Ref{Kind: resource.KindService, Name: "s"}, s)
	if err != nil {
		n.t.Fatal(err)
	}
	n.apply(o)
}

func (n *named) resolves(host string, addrs ...string) {
	n.names[host] = addrs
	n.b.Resolved(n.st, []string{host})
}

// is fails unless the service is served so: its cluster's protocol, its addresses, and whether they are a part.
func (n *named) is(want string) {
	n.t.Helper()
	got := "no cluster"
	if r := n.b.Get(translate.Key{Type: translate.TypeCluster, Name: "s"}); r != nil {
		var c clusterv3.Cluster
		if err := r.Body.UnmarshalTo(&c); err != nil {
			n.t.Fatal(err)
		}
		got = "http"
		if strings.Contains(fmt.Sprint(c.GetTypedExtensionProtocolOptions()), "http2_protocol_options") {
			got = "http2"
		}
	}
	if r := n.b.Get(translate.Key{Type: translate.TypeEndpoint, Name: "s"}); r != nil {
		var cla endpointv3.ClusterLoadAssignment
		if err := r.Body.UnmarshalTo(&cla); err != nil {
			n.t.Fatal(err)
		}
		var addrs []string
		for _, l := range cla.GetEndpoints() {
			for _, e := range l.GetLbEndpoints() {
				addrs = append(addrs, strings.TrimPrefix(e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress(), "192.0.2."))
			}
		}
		got += fmt.Sprint(" ", slices.Sorted(slices.Values(addrs)))
		if r.Partial {
			got += " in part"
		}
	}
	if got != want {
		n.t.Errorf("served as %q, want %q", got, want)
	}
}

// TestMoveToName: a service that moves to a name is served as it was, cluster and endpoints, until the name has an
// address, however long that takes; a name that does not exist takes no endpoint away.
func TestMoveToName(t *testing.T) {
	n := newNamed(t)
	n.is("http [1]")
	n.service("http2", "a")
	n.is("http [1]")
	n.resolves("a") // it does not exist
	n.is("http [1]")
	n.resolves("a", "192.0.2.2")
	n.is("http2 [2]")
	n.service("http2", "b")
	n.is("http2 [2]")
	n.service("http2", "192.0.2.3") // back, before b was answered
	n.is("http2 [3]")
	n.resolves("b", "192.0.2.4")
	n.is("http2 [3]")
	// what is known of the new endpoints is served, when that is all there will be
	n.service("http2", "192.0.2.5", "nobody")
	n.is("http2 [3]")
	n.resolves("nobody")
	n.is("http2 [5]")
	n.service("http2")
	n.is("http2 []") // that is what was asked for
}

// TestKeptOverARestart: what a service is served as while its names have no address is handed to the next life of the
// builder, which serves it so until they have one; what has changed in the meantime goes first.
func TestKeptOverARestart(t *testing.T) {
	again := func(n *named) *named {
		next := newNamed(t)
		next.b = translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: next.resolve})
		next.st = n.st
		next.b.Rebuild(next.st)
		next.b.Keep(next.st, n.b.Kept())
		return next
	}
	n := newNamed(t)
	if got := n.b.Kept(); got != nil {
		t.Errorf("kept %v where nothing waits", got)
	}
	n.service("http2", "a")
	for range 2 {
		n = again(n)
		n.is("http [1]")
		n.resolves("a")
		n.is("http [1]")
	}
	kept := n.b.Kept()
	n.resolves("a", "192.0.2.2")
	n.is("http2 [2]")
	if got := n.b.Kept(); got != nil {
		t.Errorf("kept %v where nothing waits any more", got)
	}
	n.b.Keep(n.st, kept)
	n.is("http2 [2]")
}

// TestPart: endpoints of which some are missing say so, as long as nothing was taken away that an Envoy may have
// from an earlier life of the server.
func TestPart(t *testing.T) {
	n := newNamed(t)
	n.apply(resource.Tombstone(resource.Ref{Kind: resource.KindService, Name: "s"}, 1))
	n.is("no cluster")
	n.service("http", "a", "b", "192.0.2.1")
	n.is("http")
	n.resolves("a")
	n.is("http")
	n.resolves("b")
	n.is("http [1] in part")
	n.resolves("b", "192.0.2.3")
	n.is("http [1 3] in part")
	n.resolves("b", "192.0.2.4") // it has moved: what an Envoy has of it is old
	n.is("http [1 4]")
	n.resolves("a", "192.0.2.2")
	n.is("http [1 2 4]")
}
