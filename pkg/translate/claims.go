package translate

import (
	"regexp"
	"slices"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

const nameClaims = "marchproxy.claims"

// filterClaims denies tokens of filterJWT that have not the claims which their policy requires.
var filterClaims = &filter{
	name: nameClaims, holds: []proto.Message{&rbacv3.RBAC{}, passThrough(), asleep()}, before: unavailable(),
	on:      onPolicies,
	content: func(c *chain) *Resource { return c.policies.claims(nil) },
	asks:    protected,
}

// rules are what denies tokens without the claims that their policy requires.
func (s *authFilters) rules(these map[string]bool) *rbacv3.RBAC {
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

// claims is the config of the filter for required claims.
func (s *authFilters) claims(these map[string]bool) *Resource {
	content := s.rules(these)
	if content == nil {
		return sleeping(nameClaims, passThrough(), s.objects...)
	}
	requiring := slices.DeleteFunc(slices.Clone(s.native), func(a *authPart) bool { return a.native.claims == nil })
	return s.divided(extension(nameClaims, content, nil, s.objects...), requiring, these, s.claims)
}

// denyWithout denies what a policy has verified and what lacks one of the claims.
func denyWithout(policy string, claims []*configv1.RequiredClaim) *rbacconfigv3.Policy {
	var all []*rbacconfigv3.Principal
	for _, c := range claims {
		value := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}
		if len(c.GetValues()) > 0 {
			value = oneOfValues(c)
		}
		all = append(all, claim(append([]string{policy}, c.GetClaim()...), value))
	}
	has := &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_AndIds{
		AndIds: &rbacconfigv3.Principal_Set{Ids: all},
	}}
	lacks := &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: has}}
	return deny(verifiedBy(policy), lacks)
}

// verifiedBy is whoever has a token that a policy has verified.
func verifiedBy(policy string) *rbacconfigv3.Principal {
	present := &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}
	return claim([]string{policy}, &matcherv3.ValueMatcher{MatchPattern: present})
}

// deny denies whoever is all of these.
func deny(who ...*rbacconfigv3.Principal) *rbacconfigv3.Policy {
	all := &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{Ids: who}}
	return &rbacconfigv3.Policy{
		Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
		Principals:  []*rbacconfigv3.Principal{{Identifier: all}},
	}
}

func claim(path []string, value *matcherv3.ValueMatcher) *rbacconfigv3.Principal {
	m := &matcherv3.MetadataMatcher{Filter: jwtMetadata, Value: value}
	for _, p := range path {
		m.Path = append(m.Path, &matcherv3.MetadataMatcher_PathSegment{
			Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: p},
		})
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_SourcedMetadata{
		SourcedMetadata: &rbacconfigv3.SourcedMetadata{MetadataMatcher: m},
	}}
}

// oneOfValues matches a string, or a list that holds one of the values.
func oneOfValues(c *configv1.RequiredClaim) *matcherv3.ValueMatcher {
	var any []*matcherv3.ValueMatcher
	for _, v := range c.GetValues() {
		s := exactly(v)
		if c.GetWords() {
			s = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
				SafeRegex: regex("(.* )?" + regexp.QuoteMeta(v) + "( .*)?"),
			}}
		}
		one := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: s}}
		any = append(
			any,
			one,
			&matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
				MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: one},
			}}},
		)
	}
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{
		OrMatch: &matcherv3.OrMatcher{ValueMatchers: any},
	}}
}
