package translate

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

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

// filter is our filter's configuration with these policies closed.
func (s *authSlots) filter(these map[string]bool) authConfig {
	c := authConfig{PerRoute: s.perRoute}
	for _, a := range s.ours {
		p := a.ours
		if s.shut(a, these) {
			p = closedPolicy(a.ref.Name)
		}
		c.Policies = append(c.Policies, p)
	}
	if s.everywhere != nil && s.everywhere.native == nil {
		c.DefaultPolicy = s.everywhere.ref.Name
	}
	identity := map[string]bool{}
	for _, a := range s.native {
		if len(a.faults) > 0 {
			continue // nobody has claims by it, and its headers may be what is wrong with it
		}
		for _, h := range a.headers {
			identity[h] = true
		}
	}
	c.StripHeaders = slices.Sorted(maps.Keys(identity))
	return c
}

// auth is the slot of our filter with these policies closed.
func (s *authSlots) auth(these map[string]bool) *Resource {
	c := s.filter(these)
	if len(c.Policies)+len(c.StripHeaders) == 0 {
		return unused(slotAuth, s.objects...)
	}
	build := func(perRoute bool) *Resource {
		c.PerRoute = perRoute
		return extension(slotAuth, Wasm("auth", s.module("auth"), encode(c)), nil, s.objects...)
	}
	// A route's name is read only where one says something: reading it costs as much as all of the headers.
	r := build(s.perRoute)
	if !s.perRoute {
		r.Careful = build(true)
	}
	return s.divided(r, s.ours, these, s.auth)
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

// authn is the configuration of Envoy's own filter.
func (s *authSlots) authn(these map[string]bool) *jwtv3.JwtAuthentication {
	out := &jwtv3.JwtAuthentication{}
	for _, a := range s.native {
		n := a.native
		if s.shut(a, these) {
			n = closedNative(a.ref.Name)
		}
		if out.Providers == nil {
			out.Providers, out.RequirementMap = map[string]*jwtv3.JwtProvider{}, map[string]*jwtv3.JwtRequirement{}
		}
		maps.Copy(out.Providers, n.providers)
		out.RequirementMap[a.ref.Name] = n.requirement
	}
	if a := s.everywhere; a != nil && a.native != nil {
		if !s.shut(a, these) {
			for _, e := range a.policy.GetExemptPaths() {
				out.Rules = append(out.Rules, &jwtv3.RequirementRule{Match: exempt(everything(), e)})
			}
		}
		out.Rules = append(out.Rules, &jwtv3.RequirementRule{
			Match: everything(), RequirementType: &jwtv3.RequirementRule_RequirementName{RequirementName: a.ref.Name},
		})
	}
	return out
}

// jwt is the slot of Envoy's own filter.
func (s *authSlots) jwt(these map[string]bool) *Resource {
	var clusters []string
	for _, a := range s.native {
		if !s.shut(a, these) {
			clusters = append(clusters, a.native.clusters...)
		}
	}
	slices.Sort(clusters)
	content := s.authn(these)
	r := extension(slotJWT, content, slices.Compact(clusters), s.objects...)
	if len(s.native) == 0 {
		// Without any policy it still refuses a route that names one, where an empty place would let it pass: an Envoy
		// that may have such a route keeps the filter.
		careful := r
		r = sleeping(slotJWT, content, s.objects...)
		r.Careful = careful
		r.Needs = []Key{{TypeExtension, slotClaims}}
		return r
	}
	// Keys must not be there without the claims that they are good for only.
	r.Needs = []Key{{TypeExtension, slotClaims}}
	return s.divided(r, s.native, these, s.jwt)
}

// rules are what denies tokens without the claims that their policy requires.
func (s *authSlots) rules(these map[string]bool) *rbacv3.RBAC {
	all := map[string]*rbacconfigv3.Policy{}
	for _, a := range s.native {
		switch name := a.ref.Name; {
		case a.native.claims == nil:
		case s.shut(a, these):
			all[name] = deny(verifiedBy(name))
		default:
			all[name] = a.native.claims
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: all}}
}

// claims is the slot of the required claims.
func (s *authSlots) claims(these map[string]bool) *Resource {
	content := s.rules(these)
	if content == nil {
		return sleeping(slotClaims, passThrough(), s.objects...)
	}
	requiring := slices.DeleteFunc(slices.Clone(s.native), func(a *authPart) bool { return a.native.claims == nil })
	return s.divided(extension(slotClaims, content, nil, s.objects...), requiring, these, s.claims)
}

// closedNative lets nobody in: it takes tokens of a key that is a digest, to which nobody knows a private key.
func closedNative(name string) *nativePart {
	digest := sha256.Sum256([]byte("MarchProxy: a policy that refuses everything"))
	key := edKey(digest[:])
	key.Alg = "EdDSA"
	provider := &jwtv3.JwtProvider{
		RequireExpiration:   true,
		FromHeaders:         []*jwtv3.JwtHeader{{Name: "Authorization", ValuePrefix: "Bearer "}},
		JwksSourceSpecifier: &jwtv3.JwtProvider_LocalJwks{LocalJwks: inline(string(encode(jwkSet{Keys: []jwk{key}})))},
	}
	id := name + "/closed"
	return &nativePart{providers: map[string]*jwtv3.JwtProvider{id: provider}, requirement: require(id)}
}

// content is all of it as bytes, to tell two versions apart.
func (n *nativePart) content() []byte {
	all := &jwtv3.JwtAuthentication{Providers: n.providers}
	all.RequirementMap = map[string]*jwtv3.JwtRequirement{"": n.requirement}
	out := pack(all).GetValue()
	if n.claims != nil {
		out = append(out, pack(n.claims).GetValue()...)
	}
	return out
}
