package translate

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
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
		NotAfter int64  `json:"not_after,omitempty"`
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
	now := map[string]*configv1.AuthPolicy{}
	var objects []resource.Ref
	var ours authConfig
	native := nativeAuth{work: w, identity: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p := w.policy(name)
		if p == nil {
			continue
		}
		ref := resource.Ref{Kind: resource.KindAuthPolicy, Name: name}
		objects = append(objects, ref)
		now[name] = p
		if isNative(p) {
			native.add(ref, p)
		} else {
			ours.Policies = append(ours.Policies, w.ours(ref, p))
		}
	}
	for name, p := range w.retired(now) {
		ref := resource.Ref{Kind: resource.KindAuthPolicy, Name: name}
		if isNative(p) {
			native.add(ref, p)
		} else {
			ours.Policies = append(ours.Policies, w.ours(ref, p))
		}
	}
	slices.SortFunc(ours.Policies, func(a, b authPolicy) int { return compare(a.Name, b.Name) })
	if d := w.gw.GetAuthPolicy(); d != "" {
		if p := w.policy(d); p != nil && isNative(p) {
			native.everywhere(d, p)
		} else if p != nil {
			ours.DefaultPolicy = d
		}
	}
	w.newestFirst(objects)
	objects = append(objects, gw)
	ours.StripHeaders = slices.Sorted(maps.Keys(native.identity))
	r := unused(slotAuth, objects...)
	if len(ours.Policies)+len(ours.StripHeaders) > 0 {
		build := func(perRoute bool) *Resource {
			c := ours
			c.PerRoute = perRoute
			return extension(slotAuth, Wasm("auth", w.module("auth"), encode(c)), nil, objects...)
		}
		// A route's name is read only where one says something: reading it costs as much as all of the headers.
		if r = build(len(w.policies) > 0); len(w.policies) == 0 {
			r.Careful = build(true)
		}
	}
	w.put(r.Key, r)
	native.fill(objects)
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

// ours is a policy as our filter reads it. One whose secrets cannot be opened lets nobody in.
func (w *work) ours(ref resource.Ref, p *configv1.AuthPolicy) authPolicy {
	out := authPolicy{Name: ref.Name, Strip: p.GetStrip()}
	for _, e := range p.GetExemptPaths() {
		out.ExemptPaths = append(out.ExemptPaths, authExempt{e.GetPath(), e.GetPrefix()})
	}
	for _, t := range p.GetTokens() {
		token := authToken{SHA256: t.GetSha256(), Subject: t.GetSubject()}
		if end, err := time.Parse(time.RFC3339, t.GetNotAfter()); err == nil {
			token.NotAfter = end.Unix()
		}
		out.Tokens = append(out.Tokens, token)
	}
	if j := p.GetJwt(); j != nil {
		out.JWT = &authJWT{LeewaySeconds: leeway(j), Issuers: j.GetIssuers(), Audiences: j.GetAudiences()}
		for i, k := range j.GetKeys() {
			secret, ok := w.secret(ref, k, i)
			if !ok {
				return authPolicy{Name: ref.Name, Tokens: []authToken{{SHA256: strings.Repeat("0", 64)}}}
			}
			out.JWT.Keys = append(out.JWT.Keys, authKey{k.GetKid(), k.GetAlgorithm().String(), base64.RawURLEncoding.EncodeToString(secret)})
		}
		for _, r := range j.GetRequiredClaims() {
			out.JWT.RequiredClaims = append(out.JWT.RequiredClaims, authRequired{r.GetClaim(), r.GetValues(), r.GetWords()})
		}
		for _, f := range j.GetForwardClaims() {
			out.JWT.ForwardClaims = append(out.JWT.ForwardClaims, authForward{f.GetClaim(), f.GetHeader()})
		}
	}
	return out
}

func leeway(j *configv1.Jwt) int64 {
	return int64(orElse(j.GetLeeway(), time.Minute).AsDuration() / time.Second)
}

// secret opens a key's secret.
func (w *work) secret(ref resource.Ref, k *configv1.JwtKey, i int) ([]byte, bool) {
	text := k.GetSecret()
	if w.opt.Open != nil {
		var err error
		if text, err = w.opt.Open(ref, config.SecretField(k), text); err != nil {
			w.problem(ref, config.KeyPath(i)+".secret", "auth_policy.sealed", "cannot be opened with this SECRET_KEY: "+err.Error())
			return nil, false
		}
	}
	secret, err := config.KeyBytes(k, text)
	return secret, err == nil
}
