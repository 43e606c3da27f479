package translate

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Around is the part of a state on which it depends what the Envoys of a gateway do with the requests of one host.
type Around struct {
	gateway string
	// hosts are those whose routes may serve the host, wildcards as they are written.
	hosts   []string
	objects []*resource.Object
	// shut are the https listeners that wait for their first certificate.
	shut map[string]bool
}

// At finds what is around a host, as a client writes it without port and final dot: the gateway, the routes of the
// host and of the wildcards above it, and what these name; but no services, whose endpoints decide on nothing here. It
// costs what it finds, and a look at each rate limit policy, however many hosts there are. What it returns outlives
// the state; nil where there is no such gateway.
func At(st *config.State, gateway, host string) *Around {
	g := gatewayIn(st, gateway)
	if g == nil {
		return nil
	}
	lower := strings.ToLower(host)
	a := &Around{gateway: gateway, hosts: []string{lower, config.AnyHost}, shut: map[string]bool{}}
	for h := range above(lower) {
		a.hosts = append(a.hosts, h)
	}
	seen := map[resource.Ref]bool{}
	add := func(kind, name string) {
		r := resource.Ref{Kind: kind, Name: name}
		if o := st.Get(r); o != nil && !seen[r] {
			seen[r] = true
			a.objects = append(a.objects, o)
		}
	}
	add(resource.KindGateway, gateway)
	add(resource.KindAuthPolicy, g.GetAuthPolicy())
	add(resource.KindLicense, g.GetLicense())
	for _, h := range a.hosts {
		for _, o := range st.RoutesOf(config.HostKey{Gateway: gateway, Host: h}) {
			add(resource.KindRoute, o.Name)
			add(resource.KindAuthPolicy, o.Message().(*configv1.Route).GetAuthPolicy())
		}
	}
	for _, name := range st.Names(resource.KindRateLimit) {
		r := resource.Ref{Kind: resource.KindRateLimit, Name: name}
		p := resource.Spec[*configv1.RateLimitPolicy](st.Get(r))
		if config.LimitsGateway(p, gateway) || len(p.GetAllow()) > 0 { // whom one allows none counts
			add(resource.KindRateLimit, name)
		}
	}
	a.objects = append(a.objects, st.ChallengesAt(gateway)...)
	for _, l := range st.ServerNames(gateway).Listeners() {
		a.shut[l.Name()] = len(l.First()) == 0
	}
	return a
}

// Built is what the Envoys of a gateway have for the requests of one host: their own messages, made as all are made.
type Built struct {
	gateway *configv1.Gateway
	out     map[Key]*Resource
}

// Build makes them.
func (a *Around) Build(opt Options) (*Built, error) {
	st := config.New()
	for _, o := range a.objects {
		m := o.Message()
		switch was := m.(type) {
		case *configv1.Gateway:
			m = a.slimGateway(was)
		case *configv1.Route:
			r := shallow(was)
			r.Gateways, r.Hosts = []string{a.gateway}, a.slimHosts(was)
			m = r
		default: // as it is
			st.Apply([]*resource.Object{o})
			continue
		}
		slim, err := resource.New(o.Ref(), m)
		if err != nil {
			return nil, err
		}
		slim.Revision = o.Revision
		st.Apply([]*resource.Object{slim})
	}
	b := NewBuilder(a.gateway, opt)
	b.Rebuild(st)
	return &Built{gatewayIn(st, a.gateway), b.out}, nil
}

// anyCertificate stands for the certificates of listeners: which of them a client is shown decides on no answer.
const anyCertificate = "any"

// slimGateway is a gateway without what decides on nothing here.
func (a *Around) slimGateway(was *configv1.Gateway) *configv1.Gateway {
	g := shallow(was)
	g.Tracing, g.AccessLog, g.ApiKeys = nil, nil, nil
	g.Listeners = nil
	for _, wasListener := range was.GetListeners() {
		l := shallow(wasListener)
		if l.Certificates = nil; l.GetProtocol() == configv1.Listener_https && !a.shut[l.GetName()] {
			l.Certificates = []string{anyCertificate}
		}
		l.ClientAuth = nil
		for _, wasAuth := range wasListener.GetClientAuth() {
			c := shallow(wasAuth)
			c.Certificates = nil
			l.ClientAuth = append(l.ClientAuth, c)
		}
		g.Listeners = append(g.Listeners, l)
	}
	return g
}

// slimHosts are those of a route's hosts that may serve the host.
func (a *Around) slimHosts(r *configv1.Route) (out []string) {
	may := map[string]bool{}
	for _, h := range a.hosts {
		may[h] = true
	}
	for _, h := range config.Hosts(r) {
		if may[h] {
			out = append(out, h)
		}
	}
	return out
}

// shallow copies a message without what is in it, which both have then.
func shallow[M proto.Message](m M) M {
	out := m.ProtoReflect().New()
	for f, v := range m.ProtoReflect().Range {
		out.Set(f, v)
	}
	return out.Interface().(M)
}

// Gateway is the gateway, without certificates and keys.
func (b *Built) Gateway() *configv1.Gateway { return b.gateway }

// Listener is a listener; nil where there is none, or it waits for its first certificate.
func (b *Built) Listener(name string) (*listenerv3.Listener, error) {
	m := &listenerv3.Listener{}
	return found(b, Key{TypeListener, name}, m)
}

// RoutesOf is the route table of a scope of a listener: of a host, or of all the wildcards, [config.AnyHost]. nil where
// there is none.
func (b *Built) RoutesOf(listener, host string) (*routev3.RouteConfiguration, error) {
	m := &routev3.ScopedRouteConfiguration{}
	scope, err := found(b, Key{TypeScope, scopeName(listener, host)}, m)
	return scope.GetRouteConfiguration(), err
}

// Filter is the content of a filter's place; nil where there is none.
func (b *Built) Filter(name string) (proto.Message, error) {
	m, err := found(b, Key{TypeExtension, name}, &corev3.TypedExtensionConfig{})
	if err != nil || m == nil {
		return nil, err
	}
	return m.GetTypedConfig().UnmarshalNew()
}

// found reads a resource into a message; nil where there is none.
func found[M proto.Message](b *Built, k Key, into M) (none M, err error) {
	r := b.out[k]
	if r == nil {
		return none, nil
	}
	if err := r.Body.UnmarshalTo(into); err != nil {
		return none, err
	}
	return into, nil
}

// ObjectOf is the name of the route that somebody wrote, of one of Envoy's; "" where nobody did.
func ObjectOf(r *routev3.Route) string {
	return r.GetMetadata().GetFilterMetadata()[metadataSpace].GetFields()[metadataRoute].GetStringValue()
}

// IsMisdirected says whether a route of Envoy's answers requests that came on the wrong connection.
func IsMisdirected(r *routev3.Route) bool {
	return proto.Equal(r.GetDirectResponse(), misdirected.GetDirectResponse())
}

// ClientCA is the state of a connection that holds the authority whose certificate the client has shown.
const ClientCA = clientCA

// HostFilter is the place of the host filter.
const HostFilter = nameHost
