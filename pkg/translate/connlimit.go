package translate

import (
	"fmt"
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	networkwasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/wasm/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

const (
	nameConnections = "marchproxy.connections"
	nameAddresses   = "marchproxy.connections_per_address"
)

// filterConnections stands among the network filters, before the connection manager of every chain. What comes into it
// counts the connections of one chain that were made since it came; those that are there already stay, uncounted.
var filterConnections = &filter{
	name: nameConnections, holds: []proto.Message{&limitv3.ConnectionLimit{}}, before: unlimited(),
	on: onGateway,
	content: func(c *chain) *Resource {
		return extension(nameConnections, connectionLimit(c.gw.GetLimits().GetMaxConnections()), nil, c.ref())
	},
}

// filterAddresses stands before it, so that what one address has too many of counts nowhere else.
var filterAddresses = &filter{
	name: nameAddresses, holds: []proto.Message{&limitv3.ConnectionLimit{}, &networkwasmv3.Wasm{}}, before: unlimited(),
	on: onGateway,
	content: func(c *chain) *Resource {
		content := unlimited()
		if n := perAddress(c.gw.GetLimits()); n > 0 {
			content = PerAddress(c.module("connections"), n)
		}
		return extension(nameAddresses, content, nil, c.ref())
	},
}

// networkPlace is [filter.place] of a network filter.
func (f *filter) networkPlace() *listenerv3.Filter {
	return &listenerv3.Filter{Name: f.name, ConfigType: &listenerv3.Filter_ConfigDiscovery{
		ConfigDiscovery: f.discovered(),
	}}
}

// perAddress is how many connections an address may have; 0 for any number. Where nothing is said it is more than
// hundreds of people behind one address need, and less than a service has (serviceLimit).
func perAddress(l *configv1.Limits) uint32 {
	if l == nil || l.MaxConnectionsPerAddress == nil {
		return 1000
	}
	return l.GetMaxConnectionsPerAddress()
}

// PerAddress limits the connections of each address to n, by our filter in a file.
func PerAddress(file string, n uint32) *networkwasmv3.Wasm {
	return &networkwasmv3.Wasm{Config: plugin("connections", file, fmt.Appendf(nil, `{"limit":%d}`, n))}
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
