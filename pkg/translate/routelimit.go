package translate

import (
	"strings"

	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

const nameRouteRate = "marchproxy.route_rate_limit"

// filterRouteRate is the local rate limit that a route has of its own.
var filterRouteRate = &filter{
	name: nameRouteRate, holds: []proto.Message{&limitv3.LocalRateLimit{}}, before: asleep(),
	on: onRoutes,
	content: func(c *chain) *Resource {
		return c.onDemand(nameRouteRate, &limitv3.LocalRateLimit{StatPrefix: "route"})
	},
	asks: func(_ *view, r *configv1.Route) bool { return r.GetLocalRateLimit() != nil },
	route: func(_ *tableBuilder, name string, r *configv1.Route) proto.Message {
		if r.GetLocalRateLimit() == nil {
			return nil
		}
		return rateLimit("route_"+strings.ReplaceAll(name, "-", "_"), r.GetLocalRateLimit())
	},
}
