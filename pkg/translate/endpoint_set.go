package translate

import (
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

var endpointSetKind = kind{
	// The endpoints of the services that it adds to, before the change and after it.
	changed: func(w *work, c config.Change) {
		for _, o := range []*resource.Object{c.Before, c.After} {
			if o != nil {
				w.services[config.ServiceOf(o)] = true
			}
		}
	},
	alone: func(k *checker, o *resource.Object) {
		seen := map[string]int{}
		for i, e := range o.Message().(*configv1.EndpointSet).GetEndpoints() {
			k.address(seen, i, e.GetHost(), e.GetPort())
		}
	},
}

// add adds the endpoints of sets to a service's own. The same address and port is one endpoint to Envoy: the first one
// stands, and it drains where one of them says so, because only who saw the end coming can know.
func (v *view) add(out *endpoints, places map[place][]*endpointv3.LbEndpoint, sets []*resource.Object) {
	if len(sets) == 0 {
		return
	}
	known := map[netip.AddrPort]*endpointv3.LbEndpoint{}
	for _, some := range places {
		for _, lb := range some {
			known[addressOf(lb)] = lb
		}
	}
	for _, o := range sets {
		for _, e := range o.Message().(*configv1.EndpointSet).GetEndpoints() {
			p := place{0, locality.Of(e)}
			for _, a := range v.addresses(out, e.GetHost()) {
				lb := lbEndpoint(a, e)
				at := addressOf(lb)
				if other := known[at]; other != nil {
					lb = other
				} else {
					known[at] = lb
					places[p] = append(places[p], lb)
				}
				if e.GetState() == configv1.FoundEndpoint_draining {
					lb.HealthStatus = corev3.HealthStatus_DRAINING
				}
			}
		}
	}
}

func addressOf(lb *endpointv3.LbEndpoint) netip.AddrPort {
	a := lb.GetEndpoint().GetAddress().GetSocketAddress()
	ip, _ := netip.ParseAddr(a.GetAddress()) // it was made of one
	return netip.AddrPortFrom(ip.Unmap(), uint16(a.GetPortValue()))
}

// defaultPanicThreshold is Envoy's own, in percent: what a cluster without checks has.
const defaultPanicThreshold = 50

func isReady(lb *endpointv3.LbEndpoint) bool {
	return lb.GetHealthStatus() != corev3.HealthStatus_DRAINING
}

func drains(lb *endpointv3.LbEndpoint) bool { return !isReady(lb) }

// keep leaves out the draining endpoints of a priority where they are too many. To Envoy they are unhealthy, and where
// the share of healthy ones is below the panic threshold it sends requests to all of them: to those that are about to
// go, too. An endpoint that is left out finishes its requests just as well, and gets none. Where a service says how places
// are used all of them are left out: other places would get requests in their stead, as for others that are unhealthy.
func keep(s *configv1.Service, places map[place][]*endpointv3.LbEndpoint) {
	threshold := float64(defaultPanicThreshold)
	if s.GetHealthCheck() != nil || s.GetOutlierDetection() != nil {
		threshold = panicThreshold(s)
	}
	all, ready := map[uint32]int{}, map[uint32]int{}
	for p, some := range places {
		for _, lb := range some {
			if all[p.priority]++; isReady(lb) {
				ready[p.priority]++
			}
		}
	}
	for p, some := range places {
		share := ready[p.priority]
		if s.GetLocality() == nil && share > 0 && float64(share*100) >= threshold*float64(all[p.priority]) {
			continue
		}
		if places[p] = slices.DeleteFunc(some, drains); len(places[p]) == 0 {
			delete(places, p)
		}
	}
}
