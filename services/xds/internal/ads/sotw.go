package ads

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	clusterservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// State of the world, for clients other than the proxies that MarchProxy starts: each response has every
// resource of its type that was asked for. It is served from the same resources, quarantine included, and
// is sent again when they change; a refused response is not sent again until then. Such clients are not
// waited for by wait=live. A RouteConfiguration is served by the name of its listener, put together from
// the listener's scopes: that costs what the whole table costs.

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
func (s *Server) StreamAggregatedResources(conn discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
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
	w := &sotwClient{g: g, conn: conn, types: map[translate.Type]*sotwType{}, id: first.GetNode().GetId()}
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
		w.g.opt.Log.Warn("a state-of-the-world client refused a response", zap.String("client", w.id), zap.String("type", ShortType(t)), zap.String("reason", e.GetMessage()))
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
		if err := w.conn.Send(&discoveryv3.DiscoveryResponse{VersionInfo: version, Resources: out, TypeUrl: string(t), Nonce: wt.nonce}); err != nil {
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
	defer g.mu.Unlock()
	delete(g.watchers, c)
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

// routeTables are the route tables that were put together last, by listener: many clients ask for the same one.
type routeTables struct {
	mu   sync.Mutex
	last map[string]*routeTable
}

type routeTable struct {
	epoch  int64
	made   *translate.Resource
	scopes map[*translate.Resource]part
}

// part is what a scope adds to the table, marshalled: messages one after the other are one that has all of them.
type part struct {
	raw []byte
	// common is what all scopes of a listener say.
	common *routev3.RouteConfiguration
}

// routeTable puts a listener's scopes together to one RouteConfiguration. What has not changed since the last time is not
// read again.
func (g *Gateway) routeTable(listener string) *translate.Resource {
	g.routeTables.mu.Lock()
	defer g.routeTables.mu.Unlock()
	g.mu.Lock()
	epoch := g.table.generation
	served := g.table.served(translate.Key{Type: translate.TypeListener, Name: listener}) != nil
	g.mu.Unlock()
	was := g.routeTables.last[listener]
	switch {
	case !served:
		delete(g.routeTables.last, listener)
		return nil
	case was == nil:
		was = &routeTable{}
	case was.epoch == epoch:
		return was.made
	}
	now := &routeTable{epoch: epoch, scopes: map[*translate.Resource]part{}}
	common := &routev3.RouteConfiguration{}
	var raw []byte
	for _, r := range sortedByName(g.listed(translate.TypeScope, nil)) {
		if !strings.HasPrefix(r.Name, listener+"/") {
			continue
		}
		p, known := was.scopes[r]
		if !known {
			var err error
			if p, err = partOf(r, strings.TrimPrefix(r.Name, listener+"/")); err != nil {
				g.opt.Log.Error("a scope cannot be read", zap.String("name", r.Name), zap.Error(err))
				continue
			}
		}
		now.scopes[r] = p
		raw, common = append(raw, p.raw...), p.common
	}
	head, err := proto.MarshalOptions{Deterministic: true}.Marshal(&routev3.RouteConfiguration{
		Name: listener, IgnorePortInHostMatching: true, ValidateClusters: common.GetValidateClusters(), RequestHeadersToRemove: common.GetRequestHeadersToRemove(),
	})
	if err != nil {
		g.opt.Log.Error("a route table cannot be marshalled", zap.String("listener", listener), zap.Error(err))
		return nil
	}
	raw = append(raw, head...)
	now.made = &translate.Resource{
		Key:  translate.Key{Type: translate.TypeRoute, Name: listener},
		Body: &anypb.Any{TypeUrl: string(translate.TypeRoute), Value: raw}, Version: translate.VersionOf(raw),
	}
	if g.routeTables.last == nil {
		g.routeTables.last = map[string]*routeTable{}
	}
	g.routeTables.last[listener] = now
	return now.made
}

func sortedByName(all []*translate.Resource) []*translate.Resource {
	slices.SortFunc(all, func(a, b *translate.Resource) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// partOf reads a scope of a host.
func partOf(r *translate.Resource, host string) (part, error) {
	var scope routev3.ScopedRouteConfiguration
	if err := r.Body.UnmarshalTo(&scope); err != nil {
		return part{}, err
	}
	routes := scope.GetRouteConfiguration()
	if host != "*" {
		for _, v := range routes.GetVirtualHosts() {
			v.Domains = []string{host}
		}
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&routev3.RouteConfiguration{VirtualHosts: routes.GetVirtualHosts()})
	return part{raw, &routev3.RouteConfiguration{ValidateClusters: routes.GetValidateClusters(), RequestHeadersToRemove: routes.GetRequestHeadersToRemove()}}, err
}
