package translate

import (
	"cmp"
	"maps"
	"slices"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// maxAuthText is how much text our filter gets of one gateway's policies. The filter reads every text of this size,
// whatever stands in it (wasm-filters/auth/src/config.rs: a value takes four bytes at least), and all of it is sent and
// read again at each change.
const maxAuthText = 4_000_000

// authFilters is what the filter configs with a gateway's policies are built from: it is not changed once it is there.
// A policy that an engine would refuse is closed in them: it refuses every request, and the others are what they are.
// So does one that the Envoys have refused: [Resource.Without].
type authFilters struct {
	module       func(filter string) string
	perRoute     bool
	ours, native []*authPart
	// everywhere is the policy of routes that name none; nil for none.
	everywhere *authPart
	// closed are those that the gateway has no room for, and why.
	closed map[*authPart]string
	// leaving are those that are there for routes only which are about to go.
	leaving map[*authPart]bool
	objects []resource.Ref
}

func newAuthFilters() *authFilters {
	return &authFilters{closed: map[*authPart]string{}, leaving: map[*authPart]bool{}}
}

func (s *authFilters) add(a *authPart) {
	if a.native != nil {
		s.native = append(s.native, a)
	} else {
		s.ours = append(s.ours, a)
	}
}

func (s *authFilters) sort() {
	for _, list := range [][]*authPart{s.ours, s.native} {
		slices.SortFunc(list, func(a, b *authPart) int { return compare(a.ref.Name, b.ref.Name) })
	}
}

// shut says whether a policy is closed, for a fault of its own or because it is among these.
func (s *authFilters) shut(a *authPart, these map[string]bool) bool {
	return len(a.faults) > 0 || s.closed[a] != "" || these[a.ref.Name]
}

// fit closes the largest policies, of equal ones the newest, until the others have room. The checks before a write
// are there so that there is none to close.
func (s *authFilters) fit(v *view) (problems []config.Problem) {
	size := 0
	for _, a := range slices.Concat(s.ours, s.native) {
		size += a.size
	}
	if size <= maxAuthText {
		return nil
	}
	revision := func(a *authPart) int64 {
		if o := v.st.Get(a.ref); o != nil {
			return o.Revision
		}
		return 0
	}
	whole := size
	for _, a := range slices.SortedFunc(slices.Values(s.ours), func(a, b *authPart) int {
		return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(revision(b), revision(a)), compare(a.ref.Name, b.ref.Name))
	}) {
		if size <= maxAuthText {
			break
		}
		size -= a.size
		s.closed[a] = tooMuch(v.gateway, whole)
		problems = append(problems, refuses(a.ref, fault{"$", "auth_policy.size", s.closed[a]}))
	}
	return problems
}

// divided adds to a filter config which policies are in it, and how it is without some of them.
func (s *authFilters) divided(
	r *Resource, list []*authPart, these map[string]bool, without func(map[string]bool) *Resource,
) *Resource {
	r.Parts, r.Leaving = map[string]string{}, map[string]bool{}
	for _, a := range list {
		if s.leaving[a] {
			r.Leaving[a.ref.Name] = true
		}
		if !s.shut(a, these) {
			r.Parts[a.ref.Name] = a.digest
		}
	}
	r.Without = without
	return r
}

// Policies are the authentication policies in a gateway's filter configs, by name.
type Policies struct {
	// Named are the gateway's own and those that its routes name, as the state has them.
	Named map[string]*configv1.AuthPolicy
	// Leaving are others that are there for routes only which an Envoy may still have: nothing names them any more, or
	// they have changed engines. The filter configs come to an Envoy before the routes.
	Leaving map[string]*configv1.AuthPolicy
}

// then is what is in the filter configs once the state names others: what was in them and has no successor stays.
func (p Policies) then(named map[string]*configv1.AuthPolicy) Policies {
	out := Policies{named, map[string]*configv1.AuthPolicy{}}
	for _, before := range []map[string]*configv1.AuthPolicy{p.Leaving, p.Named} {
		for name, was := range before {
			if n := named[name]; n == nil || isNative(n) != isNative(was) {
				out.Leaving[name] = was
			}
		}
	}
	return out
}

// policiesOf are the policies of these names that there are, and the gateway's own.
func (v *view) policiesOf(names map[string]map[Key]bool) map[string]*configv1.AuthPolicy {
	out := map[string]*configv1.AuthPolicy{}
	for name := range names {
		if p := v.policy(name); p != nil {
			out[name] = p
		}
	}
	if own := v.gw.GetAuthPolicy(); v.policy(own) != nil {
		out[own] = v.policy(own)
	}
	return out
}

// policyFilters is what the filter configs of both engines hold. perRoute says that some route names a policy, or none.
func (v *view) policyFilters(in Policies, perRoute bool) (*authFilters, []config.Problem) {
	s := newAuthFilters()
	s.module, s.perRoute = v.module, perRoute
	var problems []config.Problem
	for _, name := range slices.Sorted(maps.Keys(in.Named)) {
		ref := resource.Ref{Kind: resource.KindAuthPolicy, Name: name}
		part := v.part(ref, in.Named[name])
		s.objects = append(s.objects, ref)
		s.add(part)
		if len(part.faults) > 0 {
			problems = append(problems, refuses(ref, part.faults[0]))
		}
		if name == v.gw.GetAuthPolicy() {
			s.everywhere = part
		}
	}
	for name, p := range in.Leaving {
		part := v.part(resource.Ref{Kind: resource.KindAuthPolicy, Name: name}, p)
		s.leaving[part] = true
		s.add(part)
	}
	s.sort()
	problems = append(problems, s.fit(v)...)
	s.objects = append(newestFirst(v.st, s.objects), v.ref())
	return s, problems
}

// used are the parts of all of them.
func (s *authFilters) used() map[*configv1.AuthPolicy]*authPart {
	out := map[*configv1.AuthPolicy]*authPart{}
	for _, a := range slices.Concat(s.ours, s.native) {
		out[a.policy] = a
	}
	return out
}

// refuses says of a policy that it lets nobody in.
func refuses(ref resource.Ref, f fault) config.Problem {
	return config.Problem{Object: ref, Violation: resource.Violation{
		Path: f.path, Rule: f.rule,
		Message: f.message + "; until it is corrected, every request under this policy is refused",
	}}
}
