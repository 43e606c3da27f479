package translate

import (
	"cmp"
	"maps"
	"slices"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// maxAuthText is how much text our filter gets of one gateway's policies. The filter reads every text of this size,
// whatever stands in it (wasm-filters/auth/src/config.rs: a value takes four bytes at least), and all of it is sent and
// read again at each change.
const maxAuthText = 4_000_000

// authSlots is what the slots of a gateway's policies are built from: it is not changed once it is there. A policy that
// an engine would refuse is closed in them: it refuses every request, and the others are what they are. So does one
// that the Envoys have refused: [Resource.Without].
type authSlots struct {
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

func newAuthSlots() *authSlots {
	return &authSlots{closed: map[*authPart]string{}, leaving: map[*authPart]bool{}}
}

func (s *authSlots) add(a *authPart) {
	if a.native != nil {
		s.native = append(s.native, a)
	} else {
		s.ours = append(s.ours, a)
	}
}

func (s *authSlots) sort() {
	for _, list := range [][]*authPart{s.ours, s.native} {
		slices.SortFunc(list, func(a, b *authPart) int { return compare(a.ref.Name, b.ref.Name) })
	}
}

// shut says whether a policy is closed, for a fault of its own or because it is among these.
func (s *authSlots) shut(a *authPart, these map[string]bool) bool {
	return len(a.faults) > 0 || s.closed[a] != "" || these[a.ref.Name]
}

// fit closes the largest policies, of equal ones the newest, until the others have room. The checks before a write
// are there so that there is none to close.
func (s *authSlots) fit(w *work) {
	size := 0
	for _, a := range slices.Concat(s.ours, s.native) {
		size += a.size
	}
	if size <= maxAuthText {
		return
	}
	revision := func(a *authPart) int64 {
		if o := w.st.Get(a.ref); o != nil {
			return o.Revision
		}
		return 0
	}
	whole := size
	for _, a := range slices.SortedFunc(slices.Values(s.ours), func(a, b *authPart) int {
		return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(revision(b), revision(a)), compare(a.ref.Name, b.ref.Name))
	}) {
		if size <= maxAuthText {
			return
		}
		size -= a.size
		s.closed[a] = tooMuch(w.gateway, whole)
		w.refuses(a.ref, fault{"$", "auth_policy.size", s.closed[a]})
	}
}

// divided tells of a slot which policies are in it, and how it is without some of them.
func (s *authSlots) divided(
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

func (w *work) policy(name string) *configv1.AuthPolicy {
	o := w.st.Get(resource.Ref{Kind: resource.KindAuthPolicy, Name: name})
	if o == nil {
		return nil
	}
	return o.Message().(*configv1.AuthPolicy)
}

// policySlots is what the slots of both engines hold: the policies that the gateway's routes use and its own.
func (w *work) policySlots() *authSlots {
	names := map[string]bool{}
	if d := w.gw.GetAuthPolicy(); d != "" {
		names[d] = true
	}
	for name := range w.policies {
		names[name] = true
	}
	used := map[*configv1.AuthPolicy]*authPart{}
	now := map[string]*configv1.AuthPolicy{}
	s := newAuthSlots()
	s.module, s.perRoute = w.module, len(w.policies) > 0
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p := w.policy(name)
		if p == nil {
			continue
		}
		ref := resource.Ref{Kind: resource.KindAuthPolicy, Name: name}
		s.objects = append(s.objects, ref)
		now[name] = p
		part := w.part(ref, p)
		used[p] = part
		s.add(part)
		if len(part.faults) > 0 {
			w.refuses(ref, part.faults[0])
		}
	}
	for name, p := range w.retired(now) {
		part := w.part(resource.Ref{Kind: resource.KindAuthPolicy, Name: name}, p)
		used[p], s.leaving[part] = part, true
		s.add(part)
	}
	w.parts.mu.Lock()
	w.parts.of = used
	w.parts.mu.Unlock()
	if p := w.policy(w.gw.GetAuthPolicy()); p != nil {
		s.everywhere = used[p]
	}
	s.sort()
	s.fit(w)
	s.objects = append(newestFirst(w.st, s.objects), resource.Ref{Kind: resource.KindGateway, Name: w.gateway})
	return s
}

// refuses says of a policy that it lets nobody in.
func (w *work) refuses(ref resource.Ref, f fault) {
	w.problem(ref, f.path, f.rule, f.message+"; until it is corrected, every request under this policy is refused")
}

// retired are policies that no route names any more, or that have changed engines: the slots come to an
// Envoy before the routes, and what those it still has name must stay there.
func (w *work) retired(now map[string]*configv1.AuthPolicy) map[string]*configv1.AuthPolicy {
	for name, p := range w.inSlots {
		if n := now[name]; n == nil || isNative(n) != isNative(p) {
			w.retiring[name] = p
		}
	}
	for name, p := range now {
		if r := w.retiring[name]; r != nil && isNative(r) == isNative(p) {
			delete(w.retiring, name) // it is back
		}
	}
	w.inSlots = now
	return w.retiring
}
