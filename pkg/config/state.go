package config

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// HostKey is a host of a gateway, whatever the listener.
type HostKey struct{ Gateway, Host string }

// Change is one object before and after: Before nil on create, After nil on delete.
type Change struct{ Before, After *resource.Object }

// Objects yields the object before the change and after it, those that there are.
func (c Change) Objects(yield func(*resource.Object) bool) {
	if c.Before != nil && !yield(c.Before) || c.After == nil {
		return
	}
	yield(c.After)
}

// Action is what was done: create, update or delete.
func (c Change) Action() string {
	switch {
	case c.Before == nil:
		return "create"
	case c.After == nil:
		return "delete"
	}
	return "update"
}

// Ref names the object that changed.
func (c Change) Ref() resource.Ref {
	if c.After != nil {
		return c.After.Ref()
	}
	return c.Before.Ref()
}

// State is every object, with indexes. The zero value is not usable, see [New].
type State struct {
	objects map[string]map[string]*resource.Object // kind, name
	tally   resource.Tally
	// routes by the hosts they serve, and services and certificates by who refers to them.
	byHost map[HostKey]bag[*resource.Object]
	users  map[resource.Ref]bag[resource.Ref]
	// served are the routes of one host with one match.
	served map[serveKey]bag[*resource.Object]
	// cidrs are the rate limit policies by what they limit; those without CIDRs under the zero prefix.
	cidrs map[netip.Prefix]bag[*resource.Object]
	// found are the sets of endpoints by the service that they add to.
	found map[string]bag[*resource.Object]
	// challenges are what the Envoys of a gateway answer an authority, by the gateway.
	challenges map[string]bag[*resource.Object]
	// automatic are the routes that ask for certificates of their hosts.
	automatic bag[*resource.Object]
	// onListener are the routes and certificates that name a listener.
	onListener map[ListenerKey]bag[resource.Ref]
	// policies are the authentication policies that a gateway needs, its routes' and its own, by its name.
	policies map[string]bag[string]
	// matching are the routes that match by a header, and changing the policies that change it, by its word.
	matching map[headerKey]bag[string]
	changing map[string]bag[string]
	// serving says, by gateway, which certificate serves a server name, and certs what it needs of certificates.
	serving map[string]*servername.Index
	certs   map[string]*servername.Certificate
}

// ListenerKey is a listener of a gateway.
type ListenerKey struct{ Gateway, Listener string }

// New returns the empty state.
func New() *State {
	return &State{
		objects: map[string]map[string]*resource.Object{},
		tally:   resource.Tally{},
		byHost:  map[HostKey]bag[*resource.Object]{},
		users:   map[resource.Ref]bag[resource.Ref]{},
		served:  map[serveKey]bag[*resource.Object]{},
		cidrs:   map[netip.Prefix]bag[*resource.Object]{},
		found:   map[string]bag[*resource.Object]{},

		challenges: map[string]bag[*resource.Object]{},
		onListener: map[ListenerKey]bag[resource.Ref]{},
		policies:   map[string]bag[string]{},
		matching:   map[headerKey]bag[string]{},
		changing:   map[string]bag[string]{},
		serving:    map[string]*servername.Index{},
		certs:      map[string]*servername.Certificate{},
	}
}

// Get finds an object; nil where there is none.
func (s *State) Get(r resource.Ref) *resource.Object { return s.objects[r.Kind][r.Name] }

// Names lists a kind's objects in order.
func (s *State) Names(kind string) []string { return slices.Sorted(maps.Keys(s.objects[kind])) }

// All yields every object, in no order.
func (s *State) All(yield func(*resource.Object) bool) {
	for _, kind := range s.objects {
		for _, o := range kind {
			if !yield(o) {
				return
			}
		}
	}
}

// Summary is the count and hash of each kind that has objects.
func (s *State) Summary() map[string]resource.KindState { return s.tally.State() }

// RoutesOf lists the routes that serve a host of a gateway, by name; AnyHost and wildcards are hosts
// like others here.
func (s *State) RoutesOf(h HostKey) []*resource.Object {
	return slices.SortedFunc(s.byHost[h].all(), func(a, b *resource.Object) int { return a.Ref().Compare(b.Ref()) })
}

// Serves says whether a route serves a host of a gateway.
func (s *State) Serves(h HostKey) bool { return s.byHost[h].len() > 0 }

// Hosts lists the hosts of a gateway that routes serve, in no order.
func (s *State) Hosts(gateway string) []string {
	var out []string
	for h := range s.byHost {
		if h.Gateway == gateway {
			out = append(out, h.Host)
		}
	}
	return out
}

// Users lists the objects that refer to r, in order.
func (s *State) Users(r resource.Ref) []resource.Ref {
	return slices.SortedFunc(s.users[r].all(), resource.Ref.Compare)
}

// EachUser yields the objects that refer to r, in no order: who looks for one of them need not have all sorted.
func (s *State) EachUser(r resource.Ref) iter.Seq[resource.Ref] { return s.users[r].all() }

// Apply puts objects in the place of their predecessors; tombstones delete. It returns what changed
// (an object may stand in the list once) and a function that takes it all back.
func (s *State) Apply(objects []*resource.Object) (changes []Change, undo func()) {
	changes = make([]Change, 0, len(objects))
	for _, o := range objects {
		before := s.Get(o.Ref())
		after := o
		if o.Deleted {
			after = nil
		}
		if before == nil && after == nil {
			continue
		}
		s.swap(before, after)
		changes = append(changes, Change{before, after})
	}
	return changes, func() {
		for _, c := range slices.Backward(changes) {
			s.swap(c.After, c.Before)
		}
	}
}

func (s *State) swap(old, now *resource.Object) {
	c := Change{old, now}
	if old != nil {
		s.index(old, -1)
		delete(s.objects[old.Kind], old.Name)
		s.tally.Sub(old.Kind, resource.Sum(old))
	}
	s.refer(c)
	if now != nil {
		if s.objects[now.Kind] == nil {
			s.objects[now.Kind] = map[string]*resource.Object{}
		}
		s.objects[now.Kind][now.Name] = now
		s.tally.Add(now.Kind, resource.Sum(now))
		s.index(now, 1)
	}
	if k := KindOf(c.Ref().Kind); k.follow != nil {
		k.follow(s, c)
	}
}

// refer keeps count of who refers to what. What comes is counted first, that nothing goes that stays.
func (s *State) refer(c Change) {
	from := c.Ref()
	gone, come := differ(c)
	for _, r := range come {
		put(s.users, r.To, from, 1)
	}
	for _, r := range gone {
		put(s.users, r.To, from, -1)
	}
}

func (s *State) index(o *resource.Object, by int) {
	names := listenersOf(o)
	s.name(o.Ref(), names.gateways, names.listeners, by)
	if k := KindOf(o.Kind); k.index != nil {
		k.index(s, o, by)
	}
}

// name notes which listeners an object names.
func (s *State) name(o resource.Ref, gateways, listeners []string, by int) {
	for _, gw := range gateways {
		for _, l := range listeners {
			put(s.onListener, ListenerKey{gw, l}, o, by)
		}
	}
}

// need notes that a gateway needs a policy.
func (s *State) need(gateway, policy string, by int) {
	if policy != "" && policy != NoPolicy {
		put(s.policies, gateway, policy, by)
	}
}

// GatewayPolicies lists the authentication policies that a gateway needs, its routes' and its own, in no order.
func (s *State) GatewayPolicies(gateway string) []string {
	return slices.Collect(s.policies[gateway].all())
}

// PolicyGateways lists the gateways that need an authentication policy, in order.
func (s *State) PolicyGateways(policy string) []string {
	var out []string
	for gw, needed := range s.policies {
		if needed.has(policy) {
			out = append(out, gw)
		}
	}
	slices.Sort(out)
	return out
}
