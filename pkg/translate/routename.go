package translate

import (
	"strings"

	"github.com/marchproxy/marchproxy/pkg/config"
)

// NoPolicy in RouteName lets everybody through our filter.
const NoPolicy = config.NoPolicy

// RouteName is the name that Envoy knows a route by, and where our filters read what they must know of it:
// the service and the route for the figures, who may pass, and the features that it needs. policy is empty where
// the gateway's applies. None of the names can have a bar, and no policy is called "-".
func RouteName(service, route, policy string, features []string) string {
	if policy == NoPolicy {
		policy = "-"
	}
	return strings.Join([]string{service, route, policy, strings.Join(features, ",")}, "|")
}
