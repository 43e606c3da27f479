package translate

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// noRoute is the name of the last route of every table: the host is known, the path is not.
const noRoute = "marchproxy-no-route"

// maxBody is the schema's limit of a direct response's body, in bytes. Envoy's own is 4,096, and it refuses the
// whole table of a longer one.
const maxBody = 64 << 10

// What is the same in every table is made once, and not changed.
var (
	unchecked, bodyLimit = wrapperspb.Bool(false), wrapperspb.UInt32(maxBody)
	internalHeaders      = []string{ScopeHeader}
)

// builtTable is a scope, nil where it has no routes, and what it refers to.
type builtTable struct {
	r *Resource
	t tableBuilder
}

// tables builds the scopes of a host, one a listener; [wildcardScope] stands for all wildcards.
func (v *view) tables(host string) []builtTable {
	out := make([]builtTable, len(v.gw.GetListeners()))
	for i, l := range v.gw.GetListeners() {
		out[i].r, out[i].t = v.scopeOn(l, host)
	}
	return out
}

func (v *view) scopeOn(l *configv1.Listener, host string) (*Resource, tableBuilder) {
	table := &routev3.RouteConfiguration{
		Name: scopeName(l.GetName(), host), ValidateClusters: unchecked, RequestHeadersToRemove: internalHeaders,
		MaxDirectResponseBodySizeBytes: bodyLimit,
	}
	t := tableBuilder{view: v, clusters: map[string]bool{}, policies: map[string]bool{}, listener: l}
	if host != wildcardScope {
		routes := t.routes(host)
		if len(routes) == 0 {
			return nil, t
		}
		v := t.virtualHost(host, "*", routes)
		t.protectHost(v, host)
		t.answer(v, host)
		table.VirtualHosts, table.TypedPerFilterConfig = []*routev3.VirtualHost{v}, hostFilterOff
	} else {
		table.VirtualHosts = t.wildcards()
	}
	scope := &routev3.ScopedRouteConfiguration{
		Name: table.GetName(), RouteConfiguration: table,
		Key: &routev3.ScopedRouteConfiguration_Key{Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{{
			Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: ScopeKey(l.GetName(), host)},
		}}},
	}
	r := newResource(scope.GetName(), scope, slices.Sorted(maps.Keys(t.clusters)), t.objects...)
	r.Needs, r.Policies = t.needs(), slices.Sorted(maps.Keys(t.policies))
	return r, t
}

// tableBuilder gathers what a route table refers to.
type tableBuilder struct {
	*view
	listener *configv1.Listener
	clusters map[string]bool
	policies map[string]bool
	asks     map[string]bool // filters that routes ask for, by name
	objects  []resource.Ref
	learned  map[string]string // traits of services
}

func (t *tableBuilder) learn(service, traits string) {
	if t.learned == nil {
		t.learned = map[string]string{}
	}
	t.learned[service] = traits
}

func (t *tableBuilder) routes(host string) []*resource.Object {
	all := t.st.RoutesOf(config.HostKey{Gateway: t.gateway, Host: host})
	out := slices.DeleteFunc(all, func(o *resource.Object) bool {
		return !config.OnListener(o.Message().(*configv1.Route), t.listener.GetName())
	})
	slices.SortFunc(out, rank)
	return out
}

func (t *tableBuilder) virtualHost(name, domain string, routes []*resource.Object) *routev3.VirtualHost {
	v := &routev3.VirtualHost{Name: name, Domains: []string{domain}, Routes: []*routev3.Route{noTrace}}
	for _, o := range routes {
		t.objects = append(t.objects, o.Ref())
		v.Routes = append(v.Routes, t.route(o.Name, o.Message().(*configv1.Route))...)
	}
	v.Routes = append(v.Routes, notFound)
	return v
}

// notFound is the last route of every table; it is made once, and not changed.
var notFound = &routev3.Route{
	Name: noRoute, Match: everything(),
	Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 404}},
}

// noTrace is the first route of every table: TRACE would show a client what was added to its request on the way. It
// is made once, and not changed.
var noTrace = &routev3.Route{
	Name: noRoute, Match: &routev3.RouteMatch{
		PathSpecifier: everything().GetPathSpecifier(),
		Headers: []*routev3.HeaderMatcher{{Name: ":method", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
			StringMatch: &matcherv3.StringMatcher{MatchPattern: exactly("trace").GetMatchPattern(), IgnoreCase: true},
		}}},
	},
	Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 405}},
	ResponseHeadersToAdd: []*corev3.HeaderValueOption{
		replace("allow", literal("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")),
	},
}

func everything() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}
