package translate

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
)

// jwtFilter is jwt_authn's name, under which it leaves the claims of a verified token.
const jwtFilter = "envoy.filters.http.jwt_authn"

// newNative is a policy as Envoy's own filters have it: a requirement by the policy's name, of any of its providers,
// one for each issuer and source of keys.
func (a *authPart) newNative(secrets map[*configv1.JwtKey][]byte) *nativePart {
	n := &nativePart{providers: map[string]*jwtv3.JwtProvider{}}
	j := a.policy.GetJwt()
	issuers := j.GetIssuers()
	if len(issuers) == 0 {
		issuers = []string{""}
	}
	keys := ""
	if len(j.GetKeys()) > 0 || j.GetJwks() != "" {
		keys = string(encode(a.keySet(secrets)))
	}
	var any []*jwtv3.JwtRequirement
	add := func(name string, provider *jwtv3.JwtProvider) {
		n.providers[name] = provider
		any = append(any, require(name))
	}
	for i, issuer := range issuers {
		if keys != "" {
			provider := a.provider(issuer)
			provider.JwksSourceSpecifier = &jwtv3.JwtProvider_LocalJwks{LocalJwks: inline(keys)}
			add(fmt.Sprintf("%s/keys/%d", a.ref.Name, i), provider)
		}
		if r := j.GetRemoteJwks(); r != nil {
			provider := a.provider(issuer)
			provider.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: remote(r)}
			n.clusters = append(n.clusters, r.GetService())
			add(fmt.Sprintf("%s/remote/%d", a.ref.Name, i), provider)
		}
	}
	n.requirement = any[0]
	if len(any) > 1 {
		list := &jwtv3.JwtRequirementOrList{Requirements: any}
		n.requirement = &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: list}}
	}
	if len(j.GetRequiredClaims()) > 0 {
		n.claims = denyWithout(a.ref.Name, j.GetRequiredClaims())
	}
	return n
}

// keySet is a policy's keys and its own set as one set, and notes what is wrong with them.
func (a *authPart) keySet(secrets map[*configv1.JwtKey][]byte) jwkSet {
	var set jwkSet
	j := a.policy.GetJwt()
	if j.GetJwks() != "" {
		keys, wrong := publicKeys(j.GetJwks())
		for _, message := range wrong {
			a.fault("$.jwt.jwks", "auth_policy.jwks", message)
		}
		set.Keys = keys
	}
	for i, k := range j.GetKeys() {
		var key jwk
		if config.IsHMAC(k) {
			if len(secrets[k]) < config.HashSize(k) {
				a.fault(config.KeyPath(i)+".secret", "auth_policy", "is shorter than the algorithm's hash")
			}
			key = jwk{KTY: "oct", K: b64(secrets[k])}
		} else {
			var err error
			if key, err = publicKey(k); err != nil {
				a.fault(config.KeyPath(i)+".public_key", "auth_policy.public_key", err.Error())
			}
		}
		key.KID, key.Alg = k.GetKid(), k.GetAlgorithm().String()
		set.Keys = append(set.Keys, key)
	}
	return set
}

func require(provider string) *jwtv3.JwtRequirement {
	return &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: provider}}
}

func (a *authPart) provider(issuer string) *jwtv3.JwtProvider {
	j := a.policy.GetJwt()
	out := &jwtv3.JwtProvider{
		Issuer: issuer, Audiences: j.GetAudiences(), RequireExpiration: true, Forward: !a.policy.GetStrip(),
		// Envoy takes 0 for its own default.
		ClockSkewSeconds:  uint32(max(leeway(j), 1)),
		FromHeaders:       []*jwtv3.JwtHeader{{Name: "Authorization", ValuePrefix: "Bearer "}},
		PayloadInMetadata: a.ref.Name,
		JwtCacheConfig:    &jwtv3.JwtCacheConfig{JwtCacheSize: 1000},
	}
	for _, f := range j.GetForwardClaims() {
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
