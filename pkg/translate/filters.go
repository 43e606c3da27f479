package translate

import (
	"cmp"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	chainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// filters are the HTTP filters of every listener, in the order in which a request passes through them; the router
// comes after the last. A new one is a file with its declaration, and a line here.
var filters = []*filter{
	filterHost,         // host.go
	filterMetrics,      // metrics.go
	filterCORS,         // cors.go
	filterRequests,     // requestlimit.go
	filterListenerRate, // listenerlimit.go
	filterRouteRate,    // routelimit.go
	filterLicense,      // license.go
	filterAuth,         // auth.go
	filterJWT,          // jwt.go
	filterClaims,       // claims.go
}

// elsewhere are the places that are not among the HTTP filters of a new listener, and get their content as these do.
var elsewhere = []*filter{
	filterAddresses,   // connlimit.go
	filterConnections, // connlimit.go
	filterHostEarlier, // host.go
}

// everyFilter is both.
var everyFilter = slices.Concat(filters, elsewhere)

// filter declares a filter. Every listener has a place for it, in use or not, whose content comes by ECDS: the first
// route of a gateway that asks for it changes as little as the hundredth, no listener and no connection. A place that
// is not in use is asleep: Envoy makes nothing of it for a request.
//
// It is not a filter that is disabled until a route enables it, for Envoy chooses a request's filters by the first
// route that it finds, and a wildcard's request has none before the host filter (docs/adr/0021-only-what-is-used.md).
type filter struct {
	// name is that of the filter's place: its content is the ECDS filter config of this name, and what a route tells the
	// filter stands in the route under it.
	name string
	// holds are messages of the types that the content may have. A listener fixes them.
	holds []proto.Message
	// before is the content before there is any, and where none can be had. What protects something is [unavailable]
	// then, and lets nothing through.
	before proto.Message
	// on is what has the content built again.
	on cause
	// content is what comes into the place, with the clusters that it sends traffic to.
	content func(c *chain) *Resource
	// asks says whether a route asks for the filter: the route is not sent to an Envoy before the content is there.
	asks func(v *view, r *configv1.Route) bool
	// route is what a route tells the filter; nil where it tells nothing, and in all that tell nothing. Clusters that
	// the filter sends traffic to because of that go into those of the table.
	route func(t *tableBuilder, name string, r *configv1.Route) proto.Message
}

// cause is what contents of filters depend on.
type cause int

const (
	onGateway  cause = 1 << iota
	onRoutes         // whether some route of the gateway asks for the filter: [chain.asked]
	onLimits         // the rate limit policies that limit requests of the gateway
	onLicense        // the gateway's license
	onPolicies       // the authentication policies that the gateway and its routes name
	onAnything = onGateway | onRoutes | onLimits | onLicense | onPolicies
)

// chain is what the contents of a gateway's filters are made of.
type chain struct {
	*view
	// asked says whether some route of the gateway asks for a filter, by its name.
	asked func(name string) bool
	// limits are the rate limit policies that limit requests of the gateway, and those with addresses that all of them
	// let pass, in order.
	limits []string
	// policies are only there for the filters that are built on them.
	policies *authFilters
}

// newestFirst sorts what a filter config is built from: what was changed last is what Envoy refuses, if it refuses
// something.
func newestFirst(st *config.State, objects []resource.Ref) []resource.Ref {
	slices.SortStableFunc(objects, func(a, b resource.Ref) int {
		return cmp.Compare(st.Get(b).Revision, st.Get(a).Revision)
	})
	return objects
}

// onDemand is the content of a filter that is there while some route asks for it.
func (c *chain) onDemand(name string, content proto.Message) *Resource {
	if !c.asked(name) {
		content = asleep()
	}
	return extension(name, content, nil, c.ref())
}

// place is a filter's place in a listener.
func (f *filter) place() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: f.name, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: f.discovered()}}
}

// discovered is where the content of a place comes from.
func (f *filter) discovered() *corev3.ExtensionConfigSource {
	source := &corev3.ExtensionConfigSource{ConfigSource: ads(), DefaultConfig: pack(f.before)}
	urls := map[string]bool{source.DefaultConfig.GetTypeUrl(): true}
	for _, t := range f.holds {
		urls[pack(t).GetTypeUrl()] = true
	}
	source.TypeUrls = slices.Sorted(maps.Keys(urls))
	return source
}

// Closed is a filter's config before it has any, as a resource.
func Closed(name string) *Resource {
	for _, f := range everyFilter {
		if f.name == name {
			return extension(name, f.before, nil)
		}
	}
	return extension(name, unavailable(), nil)
}

// passThrough is what an unused filter config was before there was [asleep]: a filter that does nothing, and costs a
// filter.
func passThrough() proto.Message { return &mutationv3.HeaderMutation{} }

// asleep is an empty chain: Envoy puts nothing at all into the request's filters for it, so that a place
// whose content is asleep costs next to nothing.
func asleep() proto.Message { return &chainv3.FilterChainConfig{} }

// unavailable answers 503 to everything.
func unavailable() proto.Message {
	return &faultv3.HTTPFault{Abort: &faultv3.FaultAbort{
		ErrorType:  &faultv3.FaultAbort_HttpStatus{HttpStatus: 503},
		Percentage: &typev3.FractionalPercent{Numerator: 100, Denominator: typev3.FractionalPercent_HUNDRED},
	}}
}

// sleeping is the config of a filter that is not in use. An Envoy whose listeners may be from before they took an empty
// chain gets the other content: it would refuse the chain as long as connections of such a listener drain.
func sleeping(name string, other proto.Message, objects ...resource.Ref) *Resource {
	r := extension(name, asleep(), nil, objects...)
	r.Plain = extension(name, other, nil, objects...)
	return r
}

// unused is the config of a filter that protects nothing any more.
func unused(name string, objects ...resource.Ref) *Resource {
	r := sleeping(name, passThrough(), objects...)
	r.AfterRoutes, r.Plain.AfterRoutes = true, true
	return r
}

func extension(name string, content proto.Message, clusters []string, objects ...resource.Ref) *Resource {
	return newResource(name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: pack(content)}, clusters, objects...)
}
