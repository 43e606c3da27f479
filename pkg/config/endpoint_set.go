package config

import (
	"slices"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var endpointSetKind = Kind{
	Name:    resource.KindEndpointSet,
	Example: `{"spec": {"service": "web", "endpoints": [{"host": "10.0.1.11", "port": 8081}]}}`,
	Traffic: true,
	Found:   true,
	references: func(o *resource.Object, r *refs) {
		r.add(resource.KindService, endpointSetOf(o).GetService(), "$.service")
		r.found[len(r.found)-1].Adds = true
	},
	index: func(s *State, o *resource.Object, by int) { put(s.found, endpointSetOf(o).GetService(), o, by) },
	Endpoints: func(o *resource.Object) []Place {
		return hostsOf(endpointSetOf(o).GetEndpoints())
	},
	// Whoever adds endpoints to a service gets the requests of its routes.
	Reach: func(o *resource.Object) Reach {
		return Reach{Of: []resource.Ref{{Kind: resource.KindService, Name: endpointSetOf(o).GetService()}}}
	},
}

func endpointSetOf(o *resource.Object) *configv1.EndpointSet {
	return o.Message().(*configv1.EndpointSet)
}

// EndpointSetsOf are the sets that add endpoints to a service, by name. It costs what there are of them, however many
// others refer to the service.
func (s *State) EndpointSetsOf(service string) []*resource.Object {
	return slices.SortedFunc(s.found[service].all(), func(a, b *resource.Object) int { return a.Ref().Compare(b.Ref()) })
}

// ServiceOf is the service whose endpoints an object has; "" where it has none.
func ServiceOf(o *resource.Object) string {
	switch o.Kind {
	case resource.KindService:
		return o.Name
	case resource.KindEndpointSet:
		return endpointSetOf(o).GetService()
	}
	return ""
}
