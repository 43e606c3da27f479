package translate

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Two engines check tokens, and the user need not know which: our filter has shared secrets and opaque
// tokens, Envoy's jwt_authn has public keys, which may be fetched. A policy belongs to one of them as a
// whole. A route tells our filter its policy by its name, and jwt_authn by its configuration for that
// route; each is told to let the other's routes alone.

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
	return j.GetJwks() != "" || j.GetRemoteJwks() != nil || slices.ContainsFunc(j.GetKeys(), func(k *configv1.JwtKey) bool { return !config.IsHMAC(k) })
}

func (w *work) policy(name string) *configv1.AuthPolicy {
	o := w.st.Get(resource.Ref{Kind: resource.KindAuthPolicy, Name: name})
	if o == nil {
		return nil
	}
	return o.Message().(*configv1.AuthPolicy)
}

// auth builds the slots of both engines, of the policies that the gateway's routes use and its own.
func (w *work) auth(gw resource.Ref) {
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
	w.parts = used
	if p := w.policy(w.gw.GetAuthPolicy()); p != nil {
		s.everywhere = used[p]
	}
	s.sort()
	s.fit(w)
	w.newestFirst(s.objects)
	s.objects = append(s.objects, gw)
	for _, r := range []*Resource{s.auth(nil), s.jwt(nil), s.claims(nil)} {
		w.put(r.Key, r)
	}
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
