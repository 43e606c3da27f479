package translate

import (
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const slotConnections = "marchproxy.connections"

// filterConnections stands among the network filters, before the connection manager of every chain. What comes into it
// counts the connections of one chain that were made since it came; those that are there already stay, uncounted.
var filterConnections = &filter{
	slot: slotConnections, holds: []proto.Message{&limitv3.ConnectionLimit{}}, before: unlimited(),
	on: onGateway,
	content: func(c *chain) *Resource {
		return extension(slotConnections, connectionLimit(c.gw.GetLimits().GetMaxConnections()), nil, c.ref())
	},
}

func placeOfConnections() *listenerv3.Filter {
	return &listenerv3.Filter{Name: slotConnections, ConfigType: &listenerv3.Filter_ConfigDiscovery{
		ConfigDiscovery: filterConnections.discovered(),
	}}
}

// connectionLimit limits connections; not at all where n is 0.
func connectionLimit(n uint32) proto.Message {
	if n == 0 {
		return unlimited()
	}
	return &limitv3.ConnectionLimit{StatPrefix: "listener", MaxConnections: wrapperspb.UInt64(uint64(n))}
}

func unlimited() proto.Message {
	return &limitv3.ConnectionLimit{
		StatPrefix: "listener", MaxConnections: wrapperspb.UInt64(math.MaxUint32),
		RuntimeEnabled: &corev3.RuntimeFeatureFlag{
			DefaultValue: wrapperspb.Bool(false), RuntimeKey: "marchproxy.connection_limit",
		},
	}
}
