package config

import (
	"fmt"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Kind is what there is to say of a kind of resource beside its schema. One file of this package says it; what it leaves
// out does not concern the kind.
type Kind struct {
	// Name is that of its message in the schema.
	Name string

	// references tells of every object that an object refers to.
	references func(o *resource.Object, r *refs)
	// common counts what each of an object's long lists of references begins and ends with before and after a change:
	// references leaves that out, so that a long list costs a comparison.
	common func(before, after *resource.Object) [][2]int
	// listeners are those that an object names.
	listeners func(o *resource.Object) listenerNames

	// index counts an object in the state's indexes, or out of them with -1.
	index func(s *State, o *resource.Object, by int)
	// follow tells the state's other parts of a change that it has in it.
	follow func(s *State, c Change)

	// check looks at what has become of an object beside the others; what it refers to has been looked for.
	check func(s *State, c Change) []Problem
	// taken looks at what a change, a deletion too, takes from the others.
	taken func(s *State, c Change) []Problem
	// stays says why an object cannot be deleted, whoever uses it: the rule and the message, "" where it can.
	stays func(o *resource.Object) (rule, message string)
}

var kinds = map[string]*Kind{}

// The kinds' functions look each other up, so that the table cannot be the variable's first value.
func init() {
	for _, k := range []*Kind{
		&certificateKind,
		&serviceKind,
		&authPolicyKind,
		&licenseKind,
		&gatewayKind,
		&routeKind,
		&rateLimitKind,
	} {
		kinds[k.Name] = k
	}
	for _, k := range resource.Kinds {
		if kinds[k.Name] == nil {
			panic(fmt.Sprintf("config: the schema has the kind %s, and pkg/config/kinds.go has not", k.Name))
		}
	}
}

// KindOf finds a kind; what is none has nothing to say.
func KindOf(name string) *Kind {
	if k := kinds[name]; k != nil {
		return k
	}
	return &Kind{Name: name}
}

// listenerNames are the listeners that an object names, which one of the gateways must have, for https where so said.
type listenerNames struct {
	gateways, listeners []string
	https               bool
}

// listenersOf are the listeners that an object names.
func listenersOf(o *resource.Object) listenerNames {
	if k := KindOf(o.Kind); k.listeners != nil {
		return k.listeners(o)
	}
	return listenerNames{}
}
