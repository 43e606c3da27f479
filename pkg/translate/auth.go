package translate

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	httpwasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
)

// Two engines check tokens, and the user need not know which: our filter has shared secrets and opaque
// tokens, Envoy's jwt_authn has public keys, which may be fetched. A policy belongs to one of them as a
// whole. A route tells our filter its policy by its name, and jwt_authn by its configuration for that
// route; each is told to let the other's routes alone.

const nameAuth = "marchproxy.auth"

// filterAuth is ours: shared secrets and opaque tokens.
var filterAuth = &filter{
	name: nameAuth, holds: []proto.Message{&httpwasmv3.Wasm{}, passThrough(), asleep()}, before: unavailable(),
	on:      onPolicies,
	content: func(c *chain) *Resource { return c.policies.auth(nil) },
	asks: func(v *view, r *configv1.Route) bool {
		return protected(v, r) && needsOurs(v.policy(r.GetAuthPolicy()))
	},
}

// needsOurs says whether routes of a policy need our filter: it decides, or takes off the headers that the policy sets.
func needsOurs(p *configv1.AuthPolicy) bool {
	return !isNative(p) || len(p.GetJwt().GetForwardClaims()) > 0
}

// protected says whether a route names a policy.
func protected(_ *view, r *configv1.Route) bool {
	return r.GetAuthPolicy() != "" && r.GetAuthPolicy() != config.NoPolicy
}

// metadataSpace is where a route's plain name stands, for access logs.
const metadataSpace = "marchproxy"

// The filter's configuration; wasm-filters/auth/src/config.rs reads it.
type (
	authConfig struct {
		PerRoute      bool         `json:"per_route,omitempty"`
		DefaultPolicy string       `json:"default_policy,omitempty"`
		Policies      []authPolicy `json:"policies,omitempty"`
		StripHeaders  []string     `json:"strip_headers,omitempty"`
	}
	authPolicy struct {
		Name        string       `json:"name"`
		JWT         *authJWT     `json:"jwt,omitempty"`
		Tokens      []authToken  `json:"tokens,omitempty"`
		ExemptPaths []authExempt `json:"exempt_paths,omitempty"`
		Strip       bool         `json:"strip,omitempty"`
	}
	authJWT struct {
		Keys           []authKey      `json:"keys"`
		LeewaySeconds  int64          `json:"leeway_seconds"`
		Issuers        []string       `json:"issuers,omitempty"`
		Audiences      []string       `json:"audiences,omitempty"`
		RequiredClaims []authRequired `json:"required_claims,omitempty"`
		ForwardClaims  []authForward  `json:"forward_claims,omitempty"`
	}
	authKey struct {
		KID string `json:"kid"`
		Alg string `json:"alg"`
		K   string `json:"k"`
	}
	authRequired struct {
		Claim  []string `json:"claim"`
		Values []string `json:"values,omitempty"`
		Words  bool     `json:"words,omitempty"`
	}
	authForward struct {
		Claim  []string `json:"claim"`
		Header string   `json:"header"`
	}
	authToken struct {
		SHA256   string `json:"sha256"`
		Subject  string `json:"subject,omitempty"`
		NotAfter *int64 `json:"not_after,omitempty"`
	}
	authExempt struct {
		Path   string `json:"path"`
		Prefix bool   `json:"prefix,omitempty"`
	}
)

// isNative says whether Envoy's own filter serves a policy.
func isNative(p *configv1.AuthPolicy) bool {
	j := p.GetJwt()
	return j.GetJwks() != "" || j.GetRemoteJwks() != nil || slices.ContainsFunc(j.GetKeys(),
		func(k *configv1.JwtKey) bool { return !config.IsHMAC(k) })
}

// filter is our filter's configuration with these policies closed.
func (s *authFilters) filter(these map[string]bool) authConfig {
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

// auth is the config of our filter with these policies closed.
func (s *authFilters) auth(these map[string]bool) *Resource {
	c := s.filter(these)
	if len(c.Policies)+len(c.StripHeaders) == 0 {
		return unused(nameAuth, s.objects...)
	}
	build := func(perRoute bool) *Resource {
		c.PerRoute = perRoute
		return extension(nameAuth, Wasm("auth", s.module("auth"), encode(c)), nil, s.objects...)
	}
	// A route's name is read only where one says something: reading it costs as much as all of the headers.
	r := build(s.perRoute)
	if !s.perRoute {
		r.PerRoute = build(true)
	}
	return s.divided(r, s.ours, these, s.auth)
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("translate: encode a filter's configuration: " + err.Error()) // plain structs
	}
	return b
}

func leeway(j *configv1.Jwt) int64 {
	return int64(orElse(j.GetLeeway(), time.Minute).AsDuration() / time.Second)
}
