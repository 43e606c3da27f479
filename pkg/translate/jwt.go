package translate

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
)

const nameJWT = "marchproxy.jwt"

// filterJWT is Envoy's own: public keys, which it may fetch from a cluster.
var filterJWT = &filter{
	name: nameJWT, holds: []proto.Message{&jwtv3.JwtAuthentication{}, asleep()}, before: unavailable(),
	on:      onPolicies,
	content: func(c *chain) *Resource { return c.policies.jwt(nil) },
	asks:    protected,
	// A route that says nothing has the gateway's policy, which stands in the filter's own configuration.
	route: func(t *tableBuilder, _ string, r *configv1.Route) proto.Message {
		switch name := r.GetAuthPolicy(); {
		case name == "":
			return nil
		case isNative(t.policy(name)):
			return jwtOn(name)
		}
		return jwtOff()
	},
}

// jwtMetadata is jwt_authn's own name, under which it leaves the claims of a verified token.
const jwtMetadata = "envoy.filters.http.jwt_authn"

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
		out.ClaimToHeaders = append(out.ClaimToHeaders, &jwtv3.JwtClaimToHeader{
			HeaderName: f.GetHeader(),
			ClaimName:  strings.Join(f.GetClaim(), "."),
		})
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
			Uri: "https://" + host + r.GetPath(), HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: r.GetService()},
			Timeout: durationpb.New(5 * time.Second),
		},
		CacheDuration: orElse(r.GetCacheDuration(), 10*time.Minute),
		// Fetched before a request needs it; a listener does not wait for an identity provider that is down.
		AsyncFetch: &jwtv3.JwksAsyncFetch{FastListener: true},
	}
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
	m.Headers = append(m.Headers, &routev3.HeaderMatcher{
		Name: ":path", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(re + `(\?.*)?`)},
		}},
	})
	return m
}

// jwtOff lets a route's requests pass the native filter, jwtOn has it ask for a policy.
func jwtOff() *jwtv3.PerRouteConfig {
	return &jwtv3.PerRouteConfig{RequirementSpecifier: &jwtv3.PerRouteConfig_Disabled{Disabled: true}}
}

func jwtOn(policy string) *jwtv3.PerRouteConfig {
	return &jwtv3.PerRouteConfig{RequirementSpecifier: &jwtv3.PerRouteConfig_RequirementName{RequirementName: policy}}
}

// authn is the configuration of Envoy's own filter.
func (s *authFilters) authn(these map[string]bool) *jwtv3.JwtAuthentication {
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

// jwt is the config of Envoy's own filter.
func (s *authFilters) jwt(these map[string]bool) *Resource {
	var clusters []string
	for _, a := range s.native {
		if !s.shut(a, these) {
			clusters = append(clusters, a.native.clusters...)
		}
	}
	slices.Sort(clusters)
	content := s.authn(these)
	r := extension(nameJWT, content, slices.Compact(clusters), s.objects...)
	if len(s.native) == 0 {
		// The filter refuses the requests of a route that names a policy even when there is no policy, and an empty config
		// would let them pass. So an Envoy that may still have such a route keeps the filter.
		perRoute := r
		r = sleeping(nameJWT, content, s.objects...)
		r.PerRoute = perRoute
		r.Needs = []Key{{TypeExtension, nameClaims}}
		return r
	}
	// Keys must not be there without the claims that they are good for only.
	r.Needs = []Key{{TypeExtension, nameClaims}}
	return s.divided(r, s.native, these, s.jwt)
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
