package translate

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// authPolicy checks what the engines, ours and Envoy's, would refuse.
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
		k.jwks(j.GetJwks())
	}
	for i, f := range j.GetForwardClaims() {
		at := fmt.Sprintf("$.jwt.forward_claims[%d]", i)
		switch f.GetHeader() {
		case "authorization", "host", scopeHeader, "cookie":
			k.add(at+".header", "header.protected", "is %q, which no claim may replace", f.GetHeader())
		}
		if isFraming(f.GetHeader()) {
			k.add(at+".header", "header.protected", "is %q, which no claim may replace", f.GetHeader())
		}
		if strings.HasPrefix(f.GetHeader(), "x-envoy-") || strings.HasPrefix(f.GetHeader(), "x-license-") {
			k.add(at+".header", "header.protected", "is %q, which Envoy or MarchProxy uses itself", f.GetHeader())
		}
		if isNative(p) && strings.Contains(strings.Join(f.GetClaim(), ""), ".") {
			k.add(at+".claim", "auth_policy.claim", "has a dot in a name, which cannot be forwarded in a policy with public keys")
		}
	}
	if isNative(p) && len(p.GetTokens()) > 0 {
		k.add("$.tokens", "auth_policy.engine", "cannot stand in one policy with public keys; make a policy of their own for them, and a route for each")
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
}

// plainPath refuses what the schema's pattern cannot: the filters take no path that means another one.
func (k *checker) plainPath(at, path string) {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			k.add(at, "path.dots", "has the segment %q, which no request has after Envoy's normalisation; write the path that is meant", segment)
			return
		}
	}
}

// native builds what Envoy's own filter would get, for Envoy's own schema rules. Secrets are of no
// interest to them.
func (k *checker) native(st *config.State, ref resource.Ref, p *configv1.AuthPolicy) {
	if len(k.found) > 0 || !isNative(p) {
		return
	}
	b := NewBuilder("", Options{Open: func(resource.Ref, string, string) (string, error) { return "", nil }})
	n := nativeAuth{work: b.begin(st), identity: map[string]bool{}}
	n.add(ref, p)
	n.everywhere(ref.Name, p)
	if err := n.jwt.ValidateAll(); err != nil {
		k.add("$", "envoy.schema", "would be refused by Envoy: %v", err)
	}
}
