package config

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

var localityDrainKind = Kind{
	Name:    resource.KindLocalityDrain,
	Example: `{"spec": {"cloud": "aws", "region": "eu-west-1", "reason": "power works"}}`,
	Found:   true,
	Reach: func(*resource.Object) Reach {
		return Reach{
			EveryGateway: &Why{"$", "holds for the endpoints of every service"},
			EveryHost:    &Why{"$", "holds for the endpoints of every service"},
		}
	},
	WarnBeside: warnDrain,
}

// placed are the endpoints of an object that has some, with where they are.
func placed(o *resource.Object, each func(locality.Place) bool) {
	switch m := o.Message().(type) {
	case *configv1.Service:
		for _, e := range m.GetEndpoints() {
			if !each(locality.Of(e)) {
				return
			}
		}
	case *configv1.EndpointSet:
		for _, e := range m.GetEndpoints() {
			if !each(locality.Of(e)) {
				return
			}
		}
	}
}

// In yields the services that have endpoints in a place, their own or those of sets, each once. It looks at all of
// them.
func (s *State) In(p locality.Place) iter.Seq[string] {
	return func(yield func(service string) bool) {
		for name := range s.objects[resource.KindService] {
			if s.anyEndpoint(name, p.Has) && !yield(name) {
				return
			}
		}
	}
}

// anyEndpoint says whether one of a service's endpoints, its own and those of sets, is at a place that is asked for.
func (s *State) anyEndpoint(service string, is func(locality.Place) bool) bool {
	found := false
	look := func(o *resource.Object) {
		placed(o, func(at locality.Place) bool {
			found = found || is(at)
			return !found
		})
	}
	if o := s.Get(resource.Ref{Kind: resource.KindService, Name: service}); o != nil {
		look(o)
	}
	for set := range s.found[service].all() {
		look(set)
	}
	return found
}

// Drained are the places that are drained, in the order of the drains' names.
func (s *State) Drained() []locality.Place {
	var out []locality.Place
	for _, name := range s.Names(resource.KindLocalityDrain) {
		out = append(out, locality.Of(drainOf(s.Get(resource.Ref{Kind: resource.KindLocalityDrain, Name: name}))))
	}
	return out
}

func drainOf(o *resource.Object) *configv1.LocalityDrain {
	return o.Message().(*configv1.LocalityDrain)
}

// warnDrain says where a drain does nothing: a place without endpoints is a name that is misspelt, more often than not,
// and services that are nowhere else keep what they have.
func warnDrain(s *State, c Change) []Problem {
	if c.After == nil {
		return nil
	}
	p, drained := locality.Of(drainOf(c.After)), s.Drained()
	left := func(at locality.Place) bool {
		return !slices.ContainsFunc(drained, func(d locality.Place) bool { return d.Has(at) })
	}
	var alone []string
	services := 0
	for name := range s.In(p) {
		if services++; !s.anyEndpoint(name, left) {
			alone = append(alone, name)
		}
	}
	switch {
	case services == 0:
		return []Problem{problem(c.After, "$", "locality_drain.empty", "drains %s, where no service has an endpoint now", p)}
	case len(alone) > 0:
		return []Problem{problem(c.After, "$", "locality_drain.alone", "drains nothing of %s, which would have no endpoint "+
			"left: requests go on to all that there are", servicesNamed(alone))}
	}
	return nil
}

// servicesNamed is a list of services in words, the first few of them.
func servicesNamed(names []string) string {
	slices.Sort(names)
	const few = 5
	more := ""
	if n := len(names) - few; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names[:min(few, len(names))], ", ") + more
}
