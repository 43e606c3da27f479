package translate

import (
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// What a route asks of a filter (CORS, a rate limit of its own) stands in the route, but the filter has to be in the
// chain. As one that is always there it would cost every request of every gateway; as one that is disabled until a
// route enables it, it would be missing where the route is found late: Envoy chooses a request's filters by its
// first route, and a wildcard's request has none before the host filter. So their places are asleep until some
// route of the gateway asks for them.

// routeFilters are the slots that routes ask for, with what comes into them.
var routeFilters = map[string]proto.Message{
	slotCORS:       &corsv3.Cors{},
	slotRouteLimit: &limitv3.LocalRateLimit{StatPrefix: "route"},
}

func slotOfCORS() *hcmv3.HttpFilter { return slot(slotCORS, routeFilters[slotCORS]) }

func slotOfRouteLimit() *hcmv3.HttpFilter { return slot(slotRouteLimit, routeFilters[slotRouteLimit]) }

// use notes that a route of the table asks for a slot.
func (t *tableBuilder) use(slot string) {
	if t.uses == nil {
		t.uses = map[string]bool{}
	}
	t.uses[slot] = true
}

// useFilters replaces what a scope's routes ask for.
func (w *work) useFilters(scope Key, uses map[string]bool) {
	for slot := range routeFilters {
		was := len(w.asked[slot]) > 0
		if uses[slot] {
			if !was {
				w.asked[slot] = map[Key]bool{}
			}
			w.asked[slot][scope] = true
		} else {
			delete(w.asked[slot], scope)
		}
		w.slotted = w.slotted || was != (len(w.asked[slot]) > 0)
	}
}

// routeFilters fills the slots that routes ask for.
func (w *work) routeFilters(gw resource.Ref) {
	for slot, filter := range routeFilters {
		if len(w.asked[slot]) == 0 {
			filter = asleep()
		}
		w.fill(slot, filter, gw)
	}
}
