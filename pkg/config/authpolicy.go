package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var authPolicyKind = Kind{
	Name: resource.KindAuthPolicy,
	references: func(o *resource.Object, r *refs) {
		r.add(resource.KindService, authPolicyOf(o).GetJwt().GetRemoteJwks().GetService(), "$.jwt.remote_jwks.service")
	},
	check: func(_ *State, c Change) []Problem { return checkAuthPolicy(c.After, authPolicyOf(c.After)) },
}

func authPolicyOf(o *resource.Object) *configv1.AuthPolicy { return o.Message().(*configv1.AuthPolicy) }

// NoPolicy is what a route names to need no credentials whatever its gateway's policy is.
const NoPolicy = "none"

// KeyPath is where a policy's key stands in its spec.
func KeyPath(i int) string { return fmt.Sprintf("$.jwt.keys[%d]", i) }

// SecretField is the field for which a key's secret is sealed: it opens for no other kid.
func SecretField(k *configv1.JwtKey) string { return "jwt.keys." + k.GetKid() + ".secret" }

// IsHMAC says whether a key is a shared secret.
func IsHMAC(k *configv1.JwtKey) bool { return HashSize(k) > 0 }

// HashSize is that of an HMAC key's hash, in bytes, and so the least size of its secret (RFC 7518 §3.2); 0
// for other keys.
func HashSize(k *configv1.JwtKey) int {
	switch k.GetAlgorithm() {
	case configv1.JwtKey_HS256:
		return 32
	case configv1.JwtKey_HS384:
		return 48
	case configv1.JwtKey_HS512:
		return 64
	default:
		return 0
	}
}

// KeyBytes decodes a key's secret, given as the user wrote it.
func KeyBytes(k *configv1.JwtKey, secret string) ([]byte, error) {
	if k.GetEncoding() != configv1.JwtKey_base64 {
		return []byte(secret), nil
	}
	text := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(secret), "=")
	out, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("is not Base64")
	}
	return out, nil
}

func checkAuthPolicy(o *resource.Object, p *configv1.AuthPolicy) []Problem {
	var out []Problem
	add := func(path, format string, args ...any) {
		out = append(out, problem(o, path, "auth_policy", format, args...))
	}
	if o.Name == NoPolicy {
		add("$", "cannot be called %q, which is what routes say that need no credentials; choose another name", NoPolicy)
	}
	kids := map[string]bool{}
	for i, k := range p.GetJwt().GetKeys() {
		if kids[k.GetKid()] {
			add(KeyPath(i)+".kid", "is the kid of two keys")
		}
		kids[k.GetKid()] = true
	}
	names, digests := map[string]bool{}, map[string]bool{}
	for i, t := range p.GetTokens() {
		if names[t.GetName()] {
			add(fmt.Sprintf("$.tokens[%d].name", i), "is the name of two tokens")
		}
		if digests[t.GetSha256()] {
			add(fmt.Sprintf("$.tokens[%d]", i), "is the same token as another one")
		}
		names[t.GetName()], digests[t.GetSha256()] = true, true
	}
	headers := map[string]bool{}
	for i, f := range p.GetJwt().GetForwardClaims() {
		if headers[f.GetHeader()] {
			add(fmt.Sprintf("$.jwt.forward_claims[%d].header", i), "is the header of two claims")
		}
		headers[f.GetHeader()] = true
	}
	return out
}
