package translate

import (
	"net/netip"

	"google.golang.org/protobuf/types/known/anypb"

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
)

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
	// Objects are the user's objects that it was built from, the likely culprit of a refusal first.
	Objects []resource.Ref
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
	// service's endpoints are then withheld until the next [Builder.Resolved].
	Resolve func(host string) (addrs []netip.Addr, ok bool)
	// Open unseals a certificate's private key; nil where sealed keys cannot occur.
	Open func(r resource.Ref, field, sealed string) (string, error)
}
