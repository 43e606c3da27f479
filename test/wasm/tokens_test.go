package wasm

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Keys for tests, one for each algorithm, each at its least length.
var (
	secret256 = []byte("0123456789abcdef0123456789abcdef")
	secret384 = []byte("0123456789abcdef0123456789abcdef0123456789abcdef")
	secret512 = []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	secrets   = map[string][]byte{"k1": secret256, "k2": secret256[:32:32], "k384": secret384, "k512": secret512}
	methods   = map[string]jwt.SigningMethod{
		"k1": jwt.SigningMethodHS256, "k384": jwt.SigningMethodHS384,
		"k512": jwt.SigningMethodHS512,
	}
)

const opaqueToken = "c2VjcmV0LXRva2VuLW9mLWEtbWFjaGluZQ=="

// users is a policy with everything in it.
var users = object{
	"name": "users",
	"jwt": object{
		"keys": []jwk{
			{"k1", "HS256", b64(secret256)},
			{"k384", "HS384", b64(secret384)},
			{"k512", "HS512", b64(secret512)},
		},
		"issuers":         []string{"https://issuer.example", "joe"},
		"audiences":       []string{"shop"},
		"required_claims": []object{{"claim": "roles", "values": []string{"admin", "owner"}}},
		"forward_claims":  []object{{"claim": "sub", "header": "x-auth-sub"}, {"claim": "roles", "header": "x-auth-roles"}},
	},
	"tokens":       []object{{"sha256": digest(opaqueToken), "subject": "ci"}},
	"exempt_paths": []object{{"path": "/healthz"}, {"path": "/public", "prefix": true}},
	"strip":        true,
}

func digest(text string) string {
	d := sha256.Sum256([]byte(text))
	return hex.EncodeToString(d[:])
}

// claims are good ones for users at that time, with changes; a nil value takes a claim away.
func claims(at time.Time, changes object) object {
	c := object{"iss": "joe", "aud": "shop", "sub": "ann", "exp": at.Unix() + 300, "roles": "admin"}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// real are good claims by the clock of Envoy.
func real(changes object) object { return claims(time.Now(), changes) }

func token(t testing.TB, kid string, c object) string {
	t.Helper()
	tok := jwt.NewWithClaims(methods[kid], jwt.MapClaims(c))
	tok.Header["kid"] = kid
	s, err := tok.SignedString(secrets[kid])
	if err != nil {
		t.Fatal(err)
	}
	return s
}
