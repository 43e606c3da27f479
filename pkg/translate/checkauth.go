package translate

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/filterconfig"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// authPolicy checks what the engines, ours and Envoy's, would refuse. What it knows it says of the field; the last word
// have the engines themselves.
func (k *checker) authPolicy(p *configv1.AuthPolicy) {
	j := p.GetJwt()
	for i, key := range j.GetKeys() {
		if !config.IsHMAC(key) {
			if _, err := publicKey(key); err != nil {
				k.add(config.KeyPath(i)+".public_key", "auth_policy.public_key", "%s", err.Error())
			}
		}
	}
	if j.GetJwks() != "" {
		_, wrong := publicKeys(j.GetJwks())
		for _, message := range wrong {
			k.add("$.jwt.jwks", "auth_policy.jwks", "%s", message)
		}
	}
	for i, f := range j.GetForwardClaims() {
		at := fmt.Sprintf("$.jwt.forward_claims[%d]", i)
		protected := []string{"authorization", "host", ScopeHeader, "cookie"}
		if slices.Contains(protected, f.GetHeader()) || IsFraming(f.GetHeader()) {
			k.add(at+".header", "header.protected", "is %q, which no claim may replace", f.GetHeader())
		}
		if strings.HasPrefix(f.GetHeader(), "x-envoy-") || strings.HasPrefix(f.GetHeader(), config.LicenseHeaders) {
			k.add(at+".header", "header.protected", "is %q, which Envoy or MarchProxy uses itself", f.GetHeader())
		}
		if isNative(p) && strings.Contains(strings.Join(f.GetClaim(), ""), ".") {
			k.add(at+".claim", "auth_policy.claim", "has a dot in a name, which cannot be forwarded in a policy "+
				"with public keys")
		}
	}
	if isNative(p) && len(p.GetTokens()) > 0 {
		k.add("$.tokens", "auth_policy.engine", "cannot stand in one policy with public keys; make a policy of their own "+
			"for them, and a route for each")
	}
	for i, e := range p.GetExemptPaths() {
		k.plainPath(fmt.Sprintf("$.exempt_paths[%d].path", i), e.GetPath())
	}
	if host := j.GetRemoteJwks().GetHost(); strings.Contains(host, ":") {
		_, port, _ := strings.Cut(host, ":")
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			k.add("$.jwt.remote_jwks.host", "auth_policy.host", "has the port %s; a port is from 1 to 65535", port)
		}
	}
	for i, t := range p.GetTokens() {
		k.timestamp(fmt.Sprintf("$.tokens[%d].not_after", i), t.GetNotAfter())
	}
}

func (k *checker) timestamp(path, text string) {
	if text == "" {
		return
	}
	switch at, err := time.Parse(time.RFC3339, text); {
	case err != nil:
		k.add(path, "timestamp", "is no time in RFC 3339, such as 2027-01-31T00:00:00Z")
	case at.Unix() < 0: // the filters count seconds from then on
		k.add(path, "timestamp", "is before 1970; give the time that is meant, such as 2027-01-31T00:00:00Z")
	}
}

func (k *checker) license(l *configv1.License) {
	k.timestamp("$.expires_at", l.GetExpiresAt())
	for i, g := range l.GetGates() {
		for j, p := range g.GetPaths() {
			k.plainPath(fmt.Sprintf("$.gates[%d].paths[%d]", i, j), p)
		}
	}
	if len(k.found) > 0 {
		return
	}
	if why := filterconfig.Refused("license", encode(licensed(l))); why != "" {
		k.add(licensePath(why), "license.engine", "would be refused by the filter: %s", why)
	}
}

// licensePath is where in the spec the filter found something.
func licensePath(why string) string {
	switch list, _, _ := strings.Cut(why, ":"); list {
	case "gates", "features":
		return "$." + list
	default:
		return "$"
	}
}

// plainPath refuses what the schema's pattern cannot: the filters take no path that means another one.
func (k *checker) plainPath(at, path string) {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			k.add(at, "path.dots", "has the segment %q, which no request has after Envoy's normalisation; write the path that "+
				"is meant", segment)
			return
		}
	}
}

// engine has the policy's engine read what it would get. Secrets are sealed here, or were checked when they were
// given: there are others of their size.
func (k *checker) engine(p *configv1.AuthPolicy) {
	if len(k.found) > 0 {
		return // and the engine would say it again
	}
	cloned := false
	for i, t := range p.GetTokens() {
		if t.GetSha256() != "" {
			continue
		}
		if !cloned { // files that nobody has sent yet hold tokens, of which the api keeps digests
			p, cloned = proto.CloneOf(p), true
		}
		p.Tokens[i].Sha256 = strings.Repeat("0", 64)
	}
	for _, f := range newPart(k.o, p, func(key *configv1.JwtKey) (string, error) { return stand(key), nil }).faults {
		k.add(f.path, f.rule, "%s", f.message)
	}
}

// stand is something in the place of a key's secret.
func stand(k *configv1.JwtKey) string {
	secret := make([]byte, config.HashSize(k))
	if k.GetEncoding() == configv1.JwtKey_base64 {
		return base64.StdEncoding.EncodeToString(secret)
	}
	return string(secret)
}

// room refuses what would have the policies of a gateway outgrow its filter. What makes them smaller, or leaves them
// as large as they are, passes: a revocation does not wait for somebody else's mistake.
func room(st *config.State, changes []config.Change) []config.Problem {
	var out []config.Problem
	sizes := map[string]int{} // by gateway
	for _, c := range changes {
		if c.After == nil {
			continue
		}
		k := &checker{o: c.After.Ref()}
		path := "$.auth_policy"
		var gateways []string
		switch m := c.After.Message().(type) {
		case *configv1.AuthPolicy:
			if c.Before != nil && proto.Size(c.Before.Message()) >= proto.Size(m) && authSize(c.Before) >= authSize(c.After) {
				continue
			}
			if path = "$"; len(m.GetTokens()) > 0 {
				path = "$.tokens"
			}
			gateways = st.PolicyGateways(c.After.Name)
		case *configv1.Route:
			was := resource.Spec[*configv1.Route](c.Before)
			same := was.GetAuthPolicy() == m.GetAuthPolicy() && slices.Equal(config.Gateways(was), config.Gateways(m))
			if m.GetAuthPolicy() == "" || same {
				continue
			}
			gateways = config.Gateways(m)
		case *configv1.Gateway:
			was := resource.Spec[*configv1.Gateway](c.Before)
			if m.GetAuthPolicy() == "" || was.GetAuthPolicy() == m.GetAuthPolicy() {
				continue
			}
			gateways = []string{c.After.Name}
		}
		for _, g := range gateways {
			if _, known := sizes[g]; !known {
				sizes[g] = gatewaySize(st, g)
			}
			if sizes[g] > maxAuthText {
				k.add(path, "auth_policy.size", "%s", tooMuch(g, sizes[g]))
				break
			}
		}
		out = append(out, k.found...)
	}
	return out
}

// gatewaySize is how much text our filter gets of a gateway's policies. Far below the limit it is an estimate that is
// never too small, because the exact size costs encoding all of it; near the limit it is exact.
func gatewaySize(st *config.State, gateway string) int {
	names := st.GatewayPolicies(gateway)
	sum := 0
	for _, size := range []func(*resource.Object) int{mostAuthSize, authSize} {
		sum = 0
		for _, name := range names {
			if o := st.Get(resource.Ref{Kind: resource.KindAuthPolicy, Name: name}); o != nil {
				sum += size(o)
			}
		}
		if sum <= maxAuthText {
			break
		}
	}
	return sum
}

// mostAuthSize is never less than [authSize], and costs less: a string's byte is six at most in JSON, and what stands
// around a string is no more than ten times what protobuf makes of it.
func mostAuthSize(o *resource.Object) int { return 10*proto.Size(o.Message()) + 200 }

// authSize is [authPart.size] of a policy, but for secrets, which are sealed here and so a little larger.
func authSize(o *resource.Object) int {
	p := o.Message().(*configv1.AuthPolicy)
	if isNative(p) {
		size := 0
		for _, f := range p.GetJwt().GetForwardClaims() {
			size += len(f.GetHeader()) + 3
		}
		return size
	}
	secrets := map[*configv1.JwtKey][]byte{}
	for _, k := range p.GetJwt().GetKeys() {
		secrets[k] = []byte(k.GetSecret())
	}
	return len(encode(oursOf(o.Name, p, secrets))) + 1
}
