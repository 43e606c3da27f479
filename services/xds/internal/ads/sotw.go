package ads

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	clusterservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// State of the world, for clients other than the proxies that MarchProxy starts: each response has every
// resource of its type that was asked for. It is served from the same resources, quarantine included, and
// is sent again when they change; a refused response is not sent again until then. Such clients are not
// waited for by wait=live. A RouteConfiguration is served by the name of its listener, put together from
// the listener's scopes ([translate.RouteTable]).

// sotwOrder is that in which types are sent.
var sotwOrder = func() (out []translate.Type) {
	for _, r := range allRules {
		out = append(out, r.typ)
	}
	return append(out, translate.TypeRoute)
}()

// sotwStream is one of the six gRPC streams.
type sotwStream interface {
	Send(*discoveryv3.DiscoveryResponse) error
	Recv() (*discoveryv3.DiscoveryRequest, error)
	Context() context.Context
}

// single are the services for one type.
type single struct {
	listenerservicev3.UnimplementedListenerDiscoveryServiceServer
	routeservicev3.UnimplementedRouteDiscoveryServiceServer
	clusterservicev3.UnimplementedClusterDiscoveryServiceServer
	endpointservicev3.UnimplementedEndpointDiscoveryServiceServer
	s *Server
}

// Register registers the aggregated service and those for one type.
func (s *Server) Register(g *grpc.Server) {
	s.raw = true
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	one := &single{s: s}
	listenerservicev3.RegisterListenerDiscoveryServiceServer(g, one)
	routeservicev3.RegisterRouteDiscoveryServiceServer(g, one)
	clusterservicev3.RegisterClusterDiscoveryServiceServer(g, one)
	endpointservicev3.RegisterEndpointDiscoveryServiceServer(g, one)
}

// StreamAggregatedResources serves every type.
func (s *Server) StreamAggregatedResources(
	conn discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	return s.serveSotw(conn)
}

// StreamListeners serves listeners.
func (o *single) StreamListeners(conn listenerservicev3.ListenerDiscoveryService_StreamListenersServer) error {
	return o.s.serveSotw(conn)
}

// StreamRoutes serves route tables by the name of their listener.
func (o *single) StreamRoutes(conn routeservicev3.RouteDiscoveryService_StreamRoutesServer) error {
	return o.s.serveSotw(conn)
}

// StreamClusters serves clusters.
func (o *single) StreamClusters(conn clusterservicev3.ClusterDiscoveryService_StreamClustersServer) error {
	return o.s.serveSotw(conn)
}

// StreamEndpoints serves endpoints.
func (o *single) StreamEndpoints(conn endpointservicev3.EndpointDiscoveryService_StreamEndpointsServer) error {
	return o.s.serveSotw(conn)
}

// sotwType is what a stream knows of one type.
type sotwType struct {
	names   []string
	version string // last sent
	nonce   string
	waiting bool // for the answer to the last response
	// returned says that the client came with something of another stream.
	returned bool
}

func (s *Server) serveSotw(conn sotwStream) error {
	first, err := conn.Recv()
	if err != nil {
		return err
	}
	c, err := s.admit(conn.Context(), first.GetNode())
	if err != nil {
		return err
	}
	defer c.leave()
	g := c.g
	w := &sotwClient{
		g: g, conn: conn, types: map[translate.Type]*sotwType{}, id: first.GetNode().GetId(),
		place: locality.FromEnvoy(first.GetNode().GetLocality()),
	}
	changed := g.watch()
	defer g.unwatch(changed)
	requests, failed := make(chan *discoveryv3.DiscoveryRequest, 16), make(chan error, 1)
	go func() {
		for {
			r, err := conn.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-conn.Context().Done():
				return
			}
		}
	}()
	w.handle(first)
	for {
		if err := w.send(); err != nil {
			return err
		}
		select {
		case r := <-requests:
			w.handle(r)
		case <-changed:
		case err := <-failed:
			return err
		case <-c.ctx.Done():
			return c.why(c.ctx.Err())
		}
	}
}

type sotwClient struct {
	g     *Gateway
	conn  sotwStream
	id    string
	place locality.Place
	types map[translate.Type]*sotwType
	nonce int
}

func (w *sotwClient) handle(r *discoveryv3.DiscoveryRequest) {
	t := translate.Type(r.GetTypeUrl())
	if !slices.Contains(sotwOrder, t) {
		return
	}
	wt := w.types[t]
	if wt == nil {
		wt = &sotwType{returned: r.GetVersionInfo() != ""}
		w.types[t] = wt
	}
	if r.GetResponseNonce() != "" && r.GetResponseNonce() != wt.nonce {
		return // about a response that another has overtaken
	}
	if e := r.GetErrorDetail(); e != nil {
		w.g.opt.Log.Warn("a state-of-the-world client refused a response", zap.String("client", w.id),
			zap.String("type", ShortType(t)), zap.String("reason", e.GetMessage()))
	}
	wt.waiting = false
	names := slices.Sorted(slices.Values(r.GetResourceNames()))
	if !slices.Equal(names, wt.names) {
		wt.names, wt.version = names, "" // new names are answered even where nothing has changed
	}
}

func (w *sotwClient) send() error {
	for _, t := range sotwOrder {
		wt := w.types[t]
		if wt == nil || wt.waiting {
			continue
		}
		resources := w.g.sotwResources(t, wt.names)
		for i, r := range resources {
			resources[i] = r.At(w.place)
		}
		if wt.returned { // endpoints that are left out stay what they are
			resources = slices.DeleteFunc(resources, func(r *translate.Resource) bool { return r.Partial })
		}
		var all []byte
		out := make([]*anypb.Any, len(resources))
		for i, r := range resources {
			all = append(append(append(append(all, r.Name...), 0), r.Version...), 0)
			out[i] = r.Body
		}
		version := translate.VersionOf(all)
		if version == wt.version {
			continue
		}
		w.nonce++
		wt.version, wt.nonce, wt.waiting = version, strconv.Itoa(w.nonce), true
		if err := w.conn.Send(&discoveryv3.DiscoveryResponse{
			VersionInfo: version, Resources: out, TypeUrl: string(t),
			Nonce: wt.nonce,
		}); err != nil {
			return err
		}
	}
	return nil
}

// watch returns a channel that is signalled when the resources may have changed.
func (g *Gateway) watch() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := make(chan struct{}, 1)
	g.watchers[c] = struct{}{}
	return c
}

func (g *Gateway) unwatch(c chan struct{}) {
	g.mu.Lock()
	delete(g.watchers, c)
	last := len(g.watchers) == 0
	if last {
		g.routeTables.at = nil // else it would hold what has changed since
	}
	g.mu.Unlock()
	if last { // nobody needs the route tables
		g.routeTables.mu.Lock()
		g.routeTables.of = nil
		g.routeTables.mu.Unlock()
	}
}

// sotwResources lists the resources of a type, of the names given or all, in order.
func (g *Gateway) sotwResources(t translate.Type, names []string) []*translate.Resource {
	if t == translate.TypeRoute {
		var out []*translate.Resource
		for _, n := range names {
			if r := g.routeTable(n); r != nil {
				out = append(out, r)
			}
		}
		return out
	}
	out := sortedByName(g.listed(t, names))
	for i, r := range out {
		out[i] = r.Anywhere()
	}
	return out
}

// listed are the resources that are served, of the names given or all. What is done with them is done
// without the gateway's lock, which the delta streams wait for.
func (g *Gateway) listed(t translate.Type, names []string) []*translate.Resource {
	var out []*translate.Resource
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(names) > 0 && !slices.Contains(names, "*") {
		for _, n := range names {
			if r := g.table.served(translate.Key{Type: t, Name: n}); r != nil {
				out = append(out, r)
			}
		}
		return out
	}
	for _, e := range g.table.types[t].byID {
		if e != nil && e.served != nil {
			out = append(out, e.served)
		}
	}
	return out
}

// routeTables are those that clients have asked for, by listener: many ask for the same one.
type routeTables struct {
	mu sync.Mutex
	of map[string]*translate.RouteTable
	// at is the change up to which they are what is served; nil where that is too far back to say. It is the gateway's
	// lock that guards it.
	at *change
}

// routeTable is a listener's scopes as one RouteConfiguration; nil without the listener. It follows the table's log, so
// that only scopes that have changed are read, and not under the gateway's lock, which the delta streams wait for.
func (g *Gateway) routeTable(listener string) *translate.Resource {
	known := &g.routeTables
	known.mu.Lock()
	defer known.mu.Unlock()
	g.mu.Lock()
	served := g.table.served(translate.Key{Type: translate.TypeListener, Name: listener}) != nil
	changed, all := g.changedScopes(served && known.of[listener] == nil)
	g.mu.Unlock()
	if known.of == nil {
		known.of = map[string]*translate.RouteTable{}
	}
	if known.of[listener] == nil {
		known.of[listener] = translate.NewRouteTable(listener)
	}
	for _, t := range known.of {
		if all {
			t.Only(changed)
		}
		// in order they are appended: none has to make room for another
		for _, name := range slices.Sorted(maps.Keys(changed)) {
			if err := t.Put(name, changed[name]); err != nil {
				g.opt.Log.Error("a route table has not all that it should have", zap.Error(err))
			}
		}
	}
	if !served {
		delete(known.of, listener)
		return nil
	}
	return known.of[listener].Resource()
}

// changedScopes are those that have changed since it was called last, nil for one that is gone, by name; or all that
// there are, where nobody knows which have changed, or all are wanted.
func (g *Gateway) changedScopes(want bool) (out map[string]*translate.Resource, all bool) {
	at := g.routeTables.at
	g.routeTables.at = g.table.tail
	out = map[string]*translate.Resource{}
	if want || at == nil {
		for _, e := range g.table.types[translate.TypeScope].byID {
			if e != nil && e.served != nil {
				out[e.Name] = e.served
			}
		}
		return out, true
	}
	for ; at != g.table.tail; at = at.next {
		if e := at.next.entry; e.Type == translate.TypeScope {
			out[e.Name] = e.served
		}
	}
	return out, false
}

func sortedByName(all []*translate.Resource) []*translate.Resource {
	slices.SortFunc(all, func(a, b *translate.Resource) int { return strings.Compare(a.Name, b.Name) })
	return all
}
