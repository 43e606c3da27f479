package translate

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/filterconfig"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// authPart is a policy as the filter configs hold it. It is made once of each version of a policy, and not changed.
type authPart struct {
	ref    resource.Ref
	policy *configv1.AuthPolicy
	// ours is what our filter holds of it, native what Envoy's own filters hold. It is one of the two.
	ours   authPolicy
	native *nativePart
	// size is how many bytes of our filter's configuration it takes.
	size int
	// headers are those that only the filter may set.
	headers []string
	// digest is one of all that the filter configs hold of it.
	digest string
	// faults are why its engine would refuse it, and with it every other policy of the gateway.
	faults []fault
}

// nativePart is what Envoy's own filters hold of a policy.
type nativePart struct {
	providers   map[string]*jwtv3.JwtProvider
	requirement *jwtv3.JwtRequirement
	// claims is the rule that denies tokens without the required ones; nil where none are required.
	claims *rbacconfigv3.Policy
	// clusters are those that keys are fetched from.
	clusters []string
}

// fault is what is wrong with a policy; the message goes after the path.
type fault struct{ path, rule, message string }

// parts are policies as the filter configs hold them, by version. Several cores ask at once.
type parts struct {
	mu sync.Mutex
	of map[*configv1.AuthPolicy]*authPart
}

func newParts() *parts { return &parts{of: map[*configv1.AuthPolicy]*authPart{}} }

// get finds one, or has it made. Who asks for the same one meanwhile may make it as well.
func (p *parts) get(policy *configv1.AuthPolicy, newOne func() *authPart) *authPart {
	p.mu.Lock()
	known := p.of[policy]
	p.mu.Unlock()
	if known != nil {
		return known
	}
	made := newOne()
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.of[policy]; known != nil {
		return known
	}
	p.of[policy] = made
	return made
}

// only forgets all others.
func (p *parts) only(used map[*configv1.AuthPolicy]*authPart) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of = used
}

// part is a policy as the filter configs hold it.
func (v *view) part(ref resource.Ref, p *configv1.AuthPolicy) *authPart {
	return v.parts.get(p, func() *authPart {
		fields := config.SecretFields(p)
		return newPart(ref, p, func(k *configv1.JwtKey) (string, error) {
			if v.opt.Open == nil {
				return k.GetSecret(), nil
			}
			return v.opt.Open(ref, fields[k], k.GetSecret())
		})
	})
}

// newPart makes a policy's part, and has its engine judge it: our filter by its own reader, Envoy's by its schema's
// rules and by what it demands of keys. Open opens a key's secret.
func newPart(ref resource.Ref, p *configv1.AuthPolicy, open func(*configv1.JwtKey) (string, error)) *authPart {
	a := &authPart{ref: ref, policy: p}
	secrets := map[*configv1.JwtKey][]byte{}
	for i, k := range p.GetJwt().GetKeys() {
		if !config.IsHMAC(k) {
			continue
		}
		text, err := open(k)
		if err != nil {
			a.fault(config.KeyPath(i)+".secret", "auth_policy.sealed", "cannot be opened with this SECRET_KEY: "+err.Error())
		} else if secrets[k], err = config.KeyBytes(k, text); err != nil {
			a.fault(config.KeyPath(i)+".secret", "auth_policy", err.Error())
		}
	}
	for _, f := range p.GetJwt().GetForwardClaims() {
		a.headers = append(a.headers, f.GetHeader())
	}
	var content []byte
	if isNative(p) {
		a.native = a.newNative(secrets)
		content = a.native.content()
		for _, h := range a.headers {
			a.size += len(h) + 3
		}
	} else {
		a.ours = oursOf(ref.Name, p, secrets)
		content = encode(a.ours)
		a.size = len(content) + 1
	}
	a.digest = VersionOf(content)
	if len(a.faults) == 0 {
		a.judge()
	}
	return a
}

func (a *authPart) fault(path, rule, message string) {
	a.faults = append(a.faults, fault{path, rule, message})
}

// judge has the engines read what they would get of this policy alone.
func (a *authPart) judge() {
	alone := newAuthFilters()
	alone.add(a)
	if why := filterconfig.Refused("auth", encode(alone.filter(nil))); why != "" {
		a.fault(faultPath(why), "auth_policy.engine", "would be refused by the filter: "+why)
	}
	if a.native == nil {
		return
	}
	alone.everywhere = a
	if err := alone.authn(nil).ValidateAll(); err != nil {
		a.fault("$", "envoy.schema", "would be refused by Envoy: "+err.Error())
	}
	if err := alone.rules(nil).ValidateAll(); err != nil {
		a.fault("$.jwt.required_claims", "envoy.schema", "would be refused by Envoy: "+err.Error())
	}
}

// faultPath is where in the spec a filter found something: it names the list first.
func faultPath(why string) string {
	list, _, _ := strings.Cut(why, ":")
	switch list {
	case "forward_claims", "header":
		return "$.jwt.forward_claims"
	case "jwt":
		return "$.jwt.keys"
	case "tokens", "exempt_paths":
		return "$." + list
	default:
		return "$"
	}
}

// oursOf is a policy as our filter reads it.
func oursOf(name string, p *configv1.AuthPolicy, secrets map[*configv1.JwtKey][]byte) authPolicy {
	out := authPolicy{Name: name, Strip: p.GetStrip()}
	for _, e := range p.GetExemptPaths() {
		out.ExemptPaths = append(out.ExemptPaths, authExempt{e.GetPath(), e.GetPrefix()})
	}
	for _, t := range p.GetTokens() {
		token := authToken{SHA256: t.GetSha256(), Subject: t.GetSubject()}
		if end, err := time.Parse(time.RFC3339, t.GetNotAfter()); err == nil {
			// The filter counts from 1970 on: what ended before has ended.
			at := max(end.Unix(), 0)
			token.NotAfter = &at
		}
		out.Tokens = append(out.Tokens, token)
	}
	j := p.GetJwt()
	if j == nil {
		return out
	}
	out.JWT = &authJWT{LeewaySeconds: leeway(j), Issuers: j.GetIssuers(), Audiences: j.GetAudiences()}
	for _, k := range j.GetKeys() {
		k := authKey{k.GetKid(), k.GetAlgorithm().String(), base64.RawURLEncoding.EncodeToString(secrets[k])}
		out.JWT.Keys = append(out.JWT.Keys, k)
	}
	for _, r := range j.GetRequiredClaims() {
		out.JWT.RequiredClaims = append(out.JWT.RequiredClaims, authRequired{r.GetClaim(), r.GetValues(), r.GetWords()})
	}
	for _, f := range j.GetForwardClaims() {
		out.JWT.ForwardClaims = append(out.JWT.ForwardClaims, authForward{f.GetClaim(), f.GetHeader()})
	}
	return out
}

// closedPolicy lets nobody in: a token whose digest is this one nobody has.
func closedPolicy(name string) authPolicy {
	return authPolicy{Name: name, Tokens: []authToken{{SHA256: strings.Repeat("0", 64)}}}
}

// tooMuch says what to do where a gateway's policies are too large together.
func tooMuch(gateway string, size int) string {
	return fmt.Sprintf("is too much: the policies that gateway %s needs would be %d bytes together, as its filter reads "+
		"them, and %d (some 40,000 opaque tokens) is the most; take tokens out, or serve some routes by another gateway",
		gateway, size, maxAuthText)
}
