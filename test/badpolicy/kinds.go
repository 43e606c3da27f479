// Package badpolicy has policies that an engine refuses, of each kind, and shows that they harm nobody else: beside one
// that came past the checks, another policy's revocation holds when its write returns, in the usual time.
package badpolicy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Kind is a way in which a policy is bad.
type Kind struct {
	Name string
	// Spec is the policy's, and Field what a write of it is refused for; "" where only Envoy refuses it.
	Spec, Field string
}

const (
	secret = "0123456789abcdef0123456789abcdef"
	hmac   = `{"kid":"a","algorithm":"HS256","secret":"` + secret + `"}`
	remote = `"remote_jwks":{"service":"idp","path":"/keys"}`
)

func keySet(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string
	}
	return `{"jwt":{"jwks":` + string(raw) + `}}`
}

func forward(keys, header string) string {
	return `{"jwt":{` + keys + `,"forward_claims":[{"claim":["sub"],"header":"` + header + `"}]}}`
}

// Kinds are all of them.
func Kinds() []Kind {
	n := strings.Repeat("gYGB", 86)
	point := `"x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"`
	token := func(more string) string {
		return `{"tokens":[{"name":"t","sha256":"` + strings.Repeat("0", 64) + `"` + more + `}]}`
	}
	return []Kind{
		{"a claim to the header cookie", forward(`"keys":[`+hmac+`]`, "cookie"), "$.spec.jwt.forward_claims[0].header"},
		{"a claim to the header te", forward(`"keys":[`+hmac+`]`, "te"), "$.spec.jwt.forward_claims[0].header"},
		{"a public key's claim to the header cookie", forward(remote, "cookie"), "$.spec.jwt.forward_claims[0].header"},
		{"an RSA key without n", keySet(`{"keys":[{"kty":"RSA","e":"AQAB"}]}`), "$.spec.jwt.jwks"},
		{"an RSA key in bad Base64", keySet(`{"keys":[{"kty":"RSA","n":"!!` + n + `","e":"AQAB"}]}`), "$.spec.jwt.jwks"},
		{"a key of another curve", keySet(`{"keys":[{"kty":"EC","crv":"P-384",` + point + `}]}`), "$.spec.jwt.jwks"},
		{"a private key", keySet(`{"keys":[{"kty":"EC","crv":"P-256",` + point + `,"d":"AQ"}]}`), "$.spec.jwt.jwks"},
		{"a key set without keys", keySet(`{"keys":[]}`), "$.spec.jwt.jwks"},
		{
			"a public key that is none", `{"jwt":{"keys":[{"kid":"a","algorithm":"ES256","public_key":"x"}]}}`,
			"$.spec.jwt.keys[0].public_key",
		},
		{
			"a secret that can be guessed", `{"jwt":{"keys":[{"kid":"a","algorithm":"HS256","secret":"short"}]}}`,
			"$.spec.jwt.keys[0].secret",
		},
		{
			"a path that is another", `{"jwt":{"keys":[` + hmac + `]},"exempt_paths":[{"path":"/a/../b"}]}`,
			"$.spec.exempt_paths[0].path",
		},
		{"an end before 1970", token(`,"not_after":"1969-12-31T23:59:59Z"`), "$.spec.tokens[0].not_after"},
		{"a time that is none", token(`,"not_after":"2026-13-01T00:00:00Z"`), "$.spec.tokens[0].not_after"},
		{
			"a word that an Envoy refuses whose regular expressions are bounded",
			strings.Replace(keySet(`{"keys":[{"kty":"EC","crv":"P-256",`+point+`}]}`), `{"jwt":{`,
				`{"jwt":{"required_claims":[{"claim":["scope"],"words":true,"values":["`+strings.Repeat("word", 50)+`"]}],`, 1),
			"",
		},
	}
}

// Tokens is a policy with so many opaque tokens.
func Tokens(from, n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`{"name":"t%d","sha256":"%064x"}`, i, from+i))
	}
	return `{"tokens":[` + strings.Join(out, ",") + `]}`
}
