package translate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// jwtFilter is jwt_authn's name, under which it leaves the claims of a verified token.
const jwtFilter = "envoy.filters.http.jwt_authn"

// nativeAuth gathers the policies that Envoy's own filter serves.
type nativeAuth struct {
	*work
	jwt jwtv3.JwtAuthentication
	// claims are the policies with required claims, as rules that deny.
	claims map[string]*rbacconfigv3.Policy
	// identity are the headers that only the filter may set.
	identity map[string]bool
	clusters []string
}

// add makes a requirement of a policy, by the policy's name: any of its providers, one for each issuer
// and source of keys.
func (n *nativeAuth) add(ref resource.Ref, p *configv1.AuthPolicy) {
	if n.jwt.Providers == nil {
		n.jwt.Providers, n.jwt.RequirementMap = map[string]*jwtv3.JwtProvider{}, map[string]*jwtv3.JwtRequirement{}
		n.claims = map[string]*rbacconfigv3.Policy{}
	}
	j := p.GetJwt()
	issuers := j.GetIssuers()
	if len(issuers) == 0 {
		issuers = []string{""}
	}
	var any []*jwtv3.JwtRequirement
	for i, issuer := range issuers {
		if len(j.GetKeys()) > 0 || j.GetJwks() != "" {
			provider := n.provider(ref, p, issuer)
			set, ok := n.keySet(ref, j)
			if !ok {
				set = `{"keys":[]}`
			}
			provider.JwksSourceSpecifier = &jwtv3.JwtProvider_LocalJwks{LocalJwks: inline(set)}
			any = append(any, n.require(fmt.Sprintf("%s/keys/%d", ref.Name, i), provider))
		}
		if r := j.GetRemoteJwks(); r != nil {
			provider := n.provider(ref, p, issuer)
			provider.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: remote(r)}
			n.clusters = append(n.clusters, r.GetService())
			any = append(any, n.require(fmt.Sprintf("%s/remote/%d", ref.Name, i), provider))
		}
	}
	requirement := any[0]
	if len(any) > 1 {
		requirement = &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: any}}}
	}
	n.jwt.RequirementMap[ref.Name] = requirement
	if len(j.GetRequiredClaims()) > 0 {
		n.claims[ref.Name] = denyWithout(ref.Name, j.GetRequiredClaims())
	}
}

func (n *nativeAuth) require(name string, p *jwtv3.JwtProvider) *jwtv3.JwtRequirement {
	n.jwt.Providers[name] = p
	return &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: name}}
}

func (n *nativeAuth) provider(ref resource.Ref, p *configv1.AuthPolicy, issuer string) *jwtv3.JwtProvider {
	j := p.GetJwt()
	out := &jwtv3.JwtProvider{
		Issuer: issuer, Audiences: j.GetAudiences(), RequireExpiration: true, Forward: !p.GetStrip(),
		// Envoy takes 0 for its own default.
		ClockSkewSeconds:  uint32(max(leeway(j), 1)),
		FromHeaders:       []*jwtv3.JwtHeader{{Name: "Authorization", ValuePrefix: "Bearer "}},
		PayloadInMetadata: ref.Name,
		JwtCacheConfig:    &jwtv3.JwtCacheConfig{JwtCacheSize: 1000},
	}
	for _, f := range j.GetForwardClaims() {
		n.identity[f.GetHeader()] = true
		out.ClaimToHeaders = append(out.ClaimToHeaders, &jwtv3.JwtClaimToHeader{HeaderName: f.GetHeader(), ClaimName: strings.Join(f.GetClaim(), ".")})
	}
	return out
}

func remote(r *configv1.RemoteJwks) *jwtv3.RemoteJwks {
	host := r.GetHost()
	if host == "" {
		host = r.GetService()
	}
	return &jwtv3.RemoteJwks{
		// The scheme is not looked at: the cluster says whether TLS is spoken.
		HttpUri: &corev3.HttpUri{
			Uri: "https://" + host + r.GetPath(), HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: r.GetService()}, Timeout: durationpb.New(5 * time.Second),
		},
		CacheDuration: orElse(r.GetCacheDuration(), 10*time.Minute),
		// Fetched before a request needs it; a listener does not wait for an identity provider that is down.
		AsyncFetch: &jwtv3.JwksAsyncFetch{FastListener: true},
	}
}

// everywhere makes a policy that of all routes that say nothing else.
func (n *nativeAuth) everywhere(name string, p *configv1.AuthPolicy) {
	for _, e := range p.GetExemptPaths() {
		n.jwt.Rules = append(n.jwt.Rules, &jwtv3.RequirementRule{Match: exempt(everything(), e)})
	}
	n.jwt.Rules = append(n.jwt.Rules, &jwtv3.RequirementRule{
		Match: everything(), RequirementType: &jwtv3.RequirementRule_RequirementName{RequirementName: name},
	})
}

// fill puts the filter, and the one for required claims, into their slots.
func (n *nativeAuth) fill(objects []resource.Ref) {
	slices.Sort(n.clusters)
	r := extension(slotJWT, &n.jwt, slices.Compact(n.clusters), objects...)
	if n.jwt.Providers == nil && n.jwt.Rules == nil {
		// Without any policy it still refuses a route that names one, where an empty place would let it pass: an Envoy
		// that may have such a route keeps the filter.
		careful := r
		r = sleeping(slotJWT, &n.jwt, objects...)
		r.Careful = careful
	}
	// Keys must not be there without the claims that they are good for only.
	r.Needs = []Key{{TypeExtension, slotClaims}}
	n.put(r.Key, r)
	if len(n.claims) == 0 {
		n.work.sleep(slotClaims, objects...)
		return
	}
	n.work.fill(slotClaims, &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: n.claims}}, objects...)
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
	has := &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{Ids: all}}}
	verified := claim([]string{policy}, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}})
	lacks := &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: has}}
	return &rbacconfigv3.Policy{
		Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
		Principals:  []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{Ids: []*rbacconfigv3.Principal{verified, lacks}}}}},
	}
}

func claim(path []string, value *matcherv3.ValueMatcher) *rbacconfigv3.Principal {
	m := &matcherv3.MetadataMatcher{Filter: jwtFilter, Value: value}
	for _, p := range path {
		m.Path = append(m.Path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: p}})
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_SourcedMetadata{SourcedMetadata: &rbacconfigv3.SourcedMetadata{MetadataMatcher: m}}}
}

// oneOfValues matches a string, or a list that holds one of the values.
func oneOfValues(c *configv1.RequiredClaim) *matcherv3.ValueMatcher {
	var any []*matcherv3.ValueMatcher
	for _, v := range c.GetValues() {
		s := exactly(v)
		if c.GetWords() {
			s = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex("(.* )?" + regexp.QuoteMeta(v) + "( .*)?")}}
		}
		one := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: s}}
		any = append(any, one, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: one}}}})
	}
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{OrMatch: &matcherv3.OrMatcher{ValueMatchers: any}}}
}

// exempt narrows a match to paths that need no credentials. It works on the path as the client sent it
// and Envoy normalised it, and takes no path with anything escaped in it.
func exempt(m *routev3.RouteMatch, e *configv1.ExemptPath) *routev3.RouteMatch {
	re := regexp.QuoteMeta(strings.TrimRight(e.GetPath(), "/"))
	switch {
	case e.GetPrefix():
		re += `(/[A-Za-z0-9._~!$&'()*+,=:@-]+)*/?`
	case strings.HasSuffix(e.GetPath(), "/"):
		re += "/"
	}
	m.Headers = append(m.Headers, &routev3.HeaderMatcher{Name: ":path", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(re + `(\?.*)?`)},
	}}})
	return m
}

// jwtOff lets a route's requests pass the native filter, jwtOn has it ask for a policy.
func jwtOff() *jwtv3.PerRouteConfig {
	return &jwtv3.PerRouteConfig{RequirementSpecifier: &jwtv3.PerRouteConfig_Disabled{Disabled: true}}
}

func jwtOn(policy string) *jwtv3.PerRouteConfig {
	return &jwtv3.PerRouteConfig{RequirementSpecifier: &jwtv3.PerRouteConfig_RequirementName{RequirementName: policy}}
}
