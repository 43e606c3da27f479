package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var authPolicyKind = Kind{
	Name: resource.KindAuthPolicy,
	Example: `{"spec": {"jwt": {"keys": [{"kid": "2026-11", "algorithm": "HS256", "secret": "example only: 32 random ` +
		`bytes or more"}], "issuers": ["https://id.example.com"], "audiences": ["shop"]}, "exempt_paths": [{"path": ` +
		`"/public", "prefix": true}]}}`,
	references: func(o *resource.Object, r *refs) {
		r.add(resource.KindService, authPolicyOf(o).GetJwt().GetRemoteJwks().GetService(), "$.jwt.remote_jwks.service")
	},
	index: (*State).indexChanged,
	check: func(s *State, c Change) []Problem {
		return append(checkAuthPolicy(c.After, authPolicyOf(c.After)), s.checkChanged(c.After)...)
	},
	Credentials: policyCredentials,
	Secret: func(holder proto.Message) (can bool, needed string) {
		k, is := holder.(*configv1.JwtKey)
		if !is || !IsHMAC(k) {
			return false, ""
		}
		return true, ", and none is stored for kid " + k.GetKid() + "; give one"
	},
	Secrets: policySecrets,
	Warn: func(c Change, _ time.Duration) []Problem {
		if c.After == nil {
			return nil
		}
		return powerless(c.After)
	},
}

func authPolicyOf(o *resource.Object) *configv1.AuthPolicy {
	return resource.Spec[*configv1.AuthPolicy](o)
}

// NoPolicy is what a route names to need no credentials whatever its gateway's policy is.
const NoPolicy = "none"

// KeyPath is where a policy's key stands in its spec.
func KeyPath(i int) string { return fmt.Sprintf("$.jwt.keys[%d]", i) }

// SecretFields are the fields for which the secrets of a policy's keys are sealed ([resource.Secret]), by key: one
// opens for no other kid.
func SecretFields(p *configv1.AuthPolicy) map[*configv1.JwtKey]string {
	out := map[*configv1.JwtKey]string{}
	for _, s := range resource.Secrets(p) {
		if k, is := s.Holder().(*configv1.JwtKey); is {
			out[k] = s.Field
		}
	}
	return out
}

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

// policySecrets holds the keys against their algorithms.
func policySecrets(w *SecretWrite) {
	encodings := map[string]configv1.JwtKey_Encoding{}
	if before, is := w.Before.(*configv1.AuthPolicy); is {
		for _, k := range before.GetJwt().GetKeys() {
			encodings[k.GetKid()] = k.GetEncoding()
		}
	}
	m := w.Spec.(*configv1.AuthPolicy)
	fields := SecretFields(m)
	for i, k := range m.GetJwt().GetKeys() {
		fail := func(field, message string) { w.Fail(KeyPath(i)+"."+field, "auth_policy", message) }
		switch {
		case !IsHMAC(k) && k.GetSecret() != "":
			fail("secret", "belongs to HS256, HS384 and HS512; "+k.GetAlgorithm().String()+" needs public_key")
		case !IsHMAC(k) && k.GetPublicKey() == "":
			fail("public_key", "is missing, which "+k.GetAlgorithm().String()+" needs; give it as PEM")
		case !IsHMAC(k):
		case k.GetPublicKey() != "":
			fail("public_key", "does not belong to "+k.GetAlgorithm().String()+", which needs secret")
		case k.GetSecret() != "":
			if w.Kept(fields[k]) && k.GetEncoding() == configv1.JwtKey_ENCODING_UNSPECIFIED {
				k.Encoding = encodings[k.GetKid()]
			}
			if message := checkSecret(k); message != "" {
				fail("secret", message)
			}
		}
	}
}

// checkSecret says what is wrong with a key's secret.
func checkSecret(k *configv1.JwtKey) string {
	raw, err := KeyBytes(k, k.GetSecret())
	if err != nil {
		return err.Error() + ", as encoding says; correct one of the two"
	}
	if len(raw) < HashSize(k) {
		return fmt.Sprintf("has %d bytes; %s needs at least %d, or it can be guessed from one token (openssl rand -hex 32 "+
			"makes 64)", len(raw), k.GetAlgorithm(), HashSize(k))
	}
	return ""
}

// policyCredentials are the tokens, and what signs others.
func policyCredentials(o *resource.Object, open func(sealed, field string) string) (out []Credential) {
	add := func(path, notAfter, what string, id ...string) {
		out = append(out, Credential{Path: path, What: what, ID: strings.Join(id, "\x00"), NotAfter: notAfter})
	}
	m := authPolicyOf(o)
	for i, t := range m.GetTokens() {
		add(fmt.Sprintf("$.tokens[%d]", i), t.GetNotAfter(), fmt.Sprintf("token %q", t.GetName()), "token", t.GetSha256())
	}
	fields := SecretFields(m)
	for i, k := range m.GetJwt().GetKeys() {
		secret := ""
		if k.GetSecret() != "" { // the same one is another text after SECRET_KEY was changed
			secret = open(k.GetSecret(), fields[k])
		}
		add(KeyPath(i), "", fmt.Sprintf("the key %q that signs tokens", k.GetKid()), "key", k.GetKid(), k.GetPublicKey(),
			k.GetEncoding().String(), secret)
	}
	if s := m.GetJwt().GetJwks(); s != "" {
		add("$.jwt.jwks", "", "the key set that signs tokens", "jwks", s)
	}
	if r := m.GetJwt().GetRemoteJwks(); r != nil {
		add("$.jwt.remote_jwks", "", fmt.Sprintf("the key set of service %q", r.GetService()), "remote", r.GetService(),
			r.GetPath(), r.GetHost())
	}
	return out
}

// powerless warns of opaque tokens that a policy's required claims always refuse, with 403: all that such a
// token has is its subject, which stands for the claim sub.
func powerless(o *resource.Object) []Problem {
	var out []Problem
	m := authPolicyOf(o)
	for i, token := range m.GetTokens() {
		for _, c := range m.GetJwt().GetRequiredClaims() {
			subject := []string{token.GetSubject()}
			if c.GetWords() {
				subject = strings.Fields(token.GetSubject())
			}
			met := slices.Equal(c.GetClaim(), []string{"sub"}) && token.GetSubject() != "" &&
				(len(c.GetValues()) == 0 ||
					slices.ContainsFunc(subject, func(s string) bool { return slices.Contains(c.GetValues(), s) }))
			if met {
				continue
			}
			out = append(out, problem(o, fmt.Sprintf("$.tokens[%d]", i), "auth_policy.powerless_token",
				"token %q is always answered 403: the policy requires the claim %s, and an opaque token has only its "+
					"subject, as sub; "+
					"give the tokens a policy of their own", token.GetName(), strings.Join(c.GetClaim(), ".")))
			break
		}
	}
	return out
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

// changedHeader is a header that a policy takes off or sets, and where it says so.
type changedHeader struct{ word, path string }

func changedHeaders(p *configv1.AuthPolicy) (out []changedHeader) {
	for i, f := range p.GetJwt().GetForwardClaims() {
		out = append(out, changedHeader{headerWord(f.GetHeader()), fmt.Sprintf("$.jwt.forward_claims[%d].header", i)})
	}
	if p.GetStrip() {
		out = append(out, changedHeader{"authorization", "$.strip"})
	}
	return out
}
