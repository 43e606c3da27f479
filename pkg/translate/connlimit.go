package translate

import (
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// slotOfConnections stands before the connection manager of every chain. What comes into it counts the
// connections of one chain that were made since it came; those that are there already stay, uncounted.
func slotOfConnections() *listenerv3.Filter {
	return &listenerv3.Filter{Name: slotConnections, ConfigType: &listenerv3.Filter_ConfigDiscovery{
		ConfigDiscovery: discovered(slotConnections, &limitv3.ConnectionLimit{}),
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

// listenerLimit is the local rate limit of each listener's requests, asleep where there is none.
func listenerLimit(l *configv1.LocalRateLimit) proto.Message {
	if l == nil {
		return asleep()
	}
	return rateLimit("listener", l)
}
