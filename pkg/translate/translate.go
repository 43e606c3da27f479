package translate

import (
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Type is an xDS type URL.
type Type string

// The types that are built.
const (
	TypeListener Type = "type.googleapis.com/envoy.config.listener.v3.Listener"
	TypeScope    Type = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
	TypeRoute    Type = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	TypeCluster  Type = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	TypeEndpoint Type = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	TypeSecret   Type = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	// TypeExtension are the contents of the filters of a listener (ECDS filter configs).
	TypeExtension Type = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
	// TypeRuntime is a layer of an Envoy's runtime (RTDS).
	TypeRuntime Type = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
)

// AnyName is the secret that is served for server names that no certificate has, and to clients that send none.
const AnyName = "*"

// Key names an xDS resource of a gateway.
type Key struct {
	Type Type
	Name string
}

// Resource is one xDS resource, marshalled. It is immutable.
type Resource struct {
	Key
	// Body is the resource as it is sent.
	Body *anypb.Any
	// Version is a digest of Body: equal content, equal version, whoever built it.
	Version string
	// Clusters are the clusters that it sends traffic to (scopes, and listeners with tracing): they must
	// be there before it and stay until it is gone.
	Clusters []string
	// Secrets are the names of the secrets that a cluster or listener makes an Envoy ask for, and Policies those of the
	// authentication policies that a scope's routes name. Both must stay until the resource is gone.
	Secrets, Policies []string
	// Together are the groups of Secrets that are in one TLS context, which Envoy takes or refuses as a whole.
	Together [][]string
	// ByName says of a secret that Envoys ask for it by the server name of a client (SNI). Such a one an Envoy forgets
	// when it is removed. Carrier is the cluster that makes every Envoy ask for it before any client does.
	ByName  bool
	Carrier string
	// Needs are the filter configs that an Envoy must have in the version that goes with this resource, before it:
	// a route that names a policy may not be there before the policy.
	Needs []Key
	Variants
	// Located is what Envoys get in place of endpoints where it matters where they are, nil where it does not. The resource
	// itself is then for those that do not say where they are.
	Located *Located
	// Parts are the policies that a filter config holds, by name, each with a digest of what it holds of it; Without is
	// the config with some of them closed, so that these refuse every request and the others are what they are. nil where
	// the resource cannot be divided.
	Parts map[string]string
	// Leaving are those of them that are there for routes only which are about to go.
	Leaving map[string]bool
	Without func(closed map[string]bool) *Resource
	// Partial says of endpoints that those of names without an address are missing. They are for Envoys that have
	// none: what an Envoy has of an earlier life of the xDS server may be more.
	Partial bool
	// Objects are the user's objects that it was built from, the likely culprit of a refusal first.
	Objects []resource.Ref
}

// Variants are what some Envoys get in place of a resource; each is nil where there is no other. An Envoy gets the
// first of these that is for it:
//
//	it has no seat under the license                      ─► OverLimit
//	it may have routes that set something per route,
//	where the configuration has such routes no more       ─► PerRoute
//	its bootstrap lacks what the resource relies on       ─► Plain
//	otherwise                                             ─► the resource itself
//
// An Envoy may still have a route that is gone from the configuration: it was cut off, or has rejected the route's
// successor. A filter that does not read what its routes set would let everybody past them.
type Variants struct {
	// OverLimit is for an Envoy that has no seat under the license.
	OverLimit *Resource
	// PerRoute is for an Envoy that may still have routes which set something: a policy, none, a feature. It reads that.
	PerRoute *Resource
	// Plain is, of a listener, for an Envoy without the gateway's runtime, [bootstrap.RuntimeLayer], and of an ECDS filter
	// config for one whose listeners may be from before [bootstrap.MetadataPlaces].
	Plain *Resource
	// AfterRoutes is a filter config that protects nothing any more. It takes the place of what an Envoy has only when the
	// Envoy has no routes any more that ask for the filter: [Resource.Protects].
	AfterRoutes bool
}

// Same says whether two resources are served alike, in every variant.
func (r *Resource) Same(o *Resource) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r.Version == o.Version && r.Carrier == o.Carrier && r.Partial == o.Partial &&
		maps.Equal(r.Leaving, o.Leaving) &&
		r.OverLimit.Same(o.OverLimit) && r.PerRoute.Same(o.PerRoute) && r.Plain.Same(o.Plain)
}

// RouteSettings are what routes set that filters read.
type RouteSettings uint8

// What routes set: an authentication policy for which they need our filter, a policy or none that it leaves alone, and
// features of the license.
const (
	SetsPolicy RouteSettings = 1 << iota
	SetsNone
	SetsFeature
)

// Sets is what a table's routes set.
func (r *Resource) Sets() (out RouteSettings) {
	if r.Type != TypeScope {
		return 0
	}
	if len(r.Policies) > 0 {
		out |= SetsNone
	}
	if slices.Contains(r.Needs, Key{TypeExtension, nameAuth}) {
		out |= SetsPolicy
	}
	if slices.Contains(r.Needs, Key{TypeExtension, nameLicense}) {
		out |= SetsFeature
	}
	return out
}

// Reads is what of the routes' settings a filter config may read.
func (r *Resource) Reads() RouteSettings {
	if r.Name == nameLicense {
		return SetsFeature
	}
	return SetsPolicy | SetsNone
}

// Protects is by which settings routes ask for a filter: what our filter leaves alone it does not protect. Were it to
// wait for routes of policies that Envoy's own filter decides on, it would wait for what never goes.
func (r *Resource) Protects() RouteSettings { return r.Reads() &^ SetsNone }

// Find is the resource itself or one of its variants, whichever has a version; nil where none does. Of those for Envoys at
// a place it finds what [Resource.At] has made.
func (r *Resource) Find(version string) *Resource {
	if r == nil || r.Version == version {
		return r
	}
	for _, v := range [...]*Resource{r.OverLimit, r.PerRoute, r.Plain} {
		if found := v.Find(version); found != nil {
			return found
		}
	}
	return r.Located.find(version)
}

// Is says whether a version is this resource's, in any variant.
func (r *Resource) Is(version string) bool { return r.Find(version) != nil }

// Anywhere is the variant that is right for an Envoy of which nothing is known.
func (r *Resource) Anywhere() *Resource {
	switch {
	case r.PerRoute != nil:
		return r.PerRoute
	case r.Plain != nil:
		return r.Plain
	}
	return r
}

// Delta is what a change did to a gateway's resources.
type Delta struct {
	// Upserts are new or have another version.
	Upserts []*Resource
	// Removes are gone.
	Removes []Key
}

// Options are what the translator needs from outside.
type Options struct {
	// Resolve returns the addresses of a DNS name of a service's endpoint. Not ok means not known yet: the
	// service's endpoints are then withheld until the next [Builder.Resolved]. A name that is known to have no
	// address takes no endpoint away: where none would be left, the service stays what it was.
	Resolve func(host string) (addrs []netip.Addr, ok bool)
	// Refused says which addresses may not be endpoints: Resolve is asked for them as for names. None where nil.
	Refused func(netip.Addr) bool
	// Measured are the latencies of the places of a service as Envoys at each place have measured them; a change of the
	// order that they give is told by [Builder.Reordered]. None where nil.
	Measured func(service string) map[locality.Place]locality.Latencies
	// Open unseals private keys and shared secrets; nil where none is sealed.
	Open func(r resource.Ref, field, sealed string) (string, error)
	// Module is the file, where the Envoys are, of one of our filters: metrics, license or auth. Where nil,
	// NAME.wasm where the images have them.
	Module func(filter string) string
}
