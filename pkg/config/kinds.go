package config

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Kind is what there is to say of a kind of resource beside its schema. One file of this package says it; what it
// leaves out does not concern the kind.
type Kind struct {
	// Name is that of its message in the schema.
	Name string
	// Example is a body that makes one, in JSON. Those of all kinds refer to each other as web.
	Example string
	// Traffic says that editors may write it. A kind that does not say so needs an operator: a gateway, for instance,
	// hands every private key and secret to whoever knows one of its api_keys.
	Traffic bool
	// Apart is a field that belongs to the place: a write that leaves it out keeps it, and an export leaves it out.
	Apart string
	// Found says that it is what was found rather than what somebody wants: a rollback and an export leave it out, and the
	// history keeps the last of what follows in short order.
	Found bool
	// System says that the server alone writes it: nobody's token may.
	System bool

	// Concerns says for which gateways' Envoys a change may be something to do; nil where that may be any.
	Concerns func(c Change) (gateways []string, all bool)
	// Nodes selects the nodes, by their labels, whose agents an object is for.
	Nodes func(o *resource.Object) map[string]string
	// Endpoints are the hosts to which an object has requests sent.
	Endpoints func(o *resource.Object) []Place
	// Reach says on which gateways and hosts an object changes what happens to requests; nil where these are those of the
	// objects that refer to it.
	Reach func(o *resource.Object) Reach
	// Credentials are the secrets in an object by which somebody is let in. open decrypts a sealed secret of it.
	Credentials func(o *resource.Object, open func(sealed, field string) string) []Credential
	// Secret says of a secret that is sealed, by the message that has it, whether there can be one, and if it is needed,
	// why, in words that go after "is missing"; "" where it is not. Without it there can, and is not.
	Secret func(holder proto.Message) (can bool, needed string)
	// Secrets looks at the secrets of a write, and writes what the server says of them.
	Secrets func(w *SecretWrite)
	// Warn says what is accepted all the same. Certificates are warned of that end so soon.
	Warn func(c Change, soon time.Duration) []Problem
	// WarnBeside says what is accepted all the same and depends on the other objects of the state, which has the change in
	// it.
	WarnBeside func(s *State, c Change) []Problem
	// Kept is the spec that a rollback brings back where there is one now: it may keep of that what the server renews by
	// itself. Without it what was comes back as it was.
	Kept func(now, then proto.Message) proto.Message

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
	// stays says why an object cannot be deleted even if nothing refers to it: the rule and the message, "" where it can.
	stays func(o *resource.Object) (rule, message string)
}

var kinds = map[string]*Kind{}

// The kinds' functions look each other up, so that the table cannot be the variable's first value.
func init() {
	for _, k := range []*Kind{
		&issuerKind,
		&certificateKind,
		&serviceKind,
		&endpointSetKind,
		&localityDrainKind,
		&authPolicyKind,
		&licenseKind,
		&gatewayKind,
		&routeKind,
		&rateLimitKind,
		&challengeKind,
	} {
		kinds[k.Name] = k
	}
	for _, k := range resource.Kinds {
		if kinds[k.Name] == nil {
			panic(fmt.Sprintf("config: the schema has the kind %s, and pkg/config/kinds.go has not", k.Name))
		}
		resource.SecretFields(k.New().ProtoReflect().Descriptor()) // or it panics
	}
}

// KindOf finds a kind; what is none has nothing to say.
func KindOf(name string) *Kind {
	if k := kinds[name]; k != nil {
		return k
	}
	return &Kind{Name: name}
}

// Found lists the kinds of what was found rather than wanted.
func Found() (names []string) {
	for _, k := range resource.Kinds {
		if KindOf(k.Name).Found {
			names = append(names, k.Name)
		}
	}
	return names
}

// Place is a name that stands in an object's spec.
type Place struct{ Path, Name string }

// Why is a reason that stands in an object's spec.
type Why struct{ Path, Words string }

// Reach is where an object changes what happens to requests by itself, besides the objects that refer to it.
type Reach struct {
	Gateways, Hosts []Place
	// EveryGateway and EveryHost say why it is all of them, in words that go after the object's name; nil where it is not.
	EveryGateway, EveryHost *Why
	// Users says that it also reaches what the objects reach that refer to it.
	Users bool
	// Of are objects which it adds to: it reaches what whoever refers to them does.
	Of []resource.Ref
}

// Credential is what opens something.
type Credential struct {
	// Path is where it stands in the spec.
	Path string
	// What it is, in words that go after the object's name: api_key "old".
	What string
	// ID is equal for two that open the same. It is a secret.
	ID string
	// NotAfter is when it ends, as RFC 3339 has it; "" for never.
	NotAfter string
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
