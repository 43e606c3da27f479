package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
)

// one knows one token.
type one struct{ secret string }

func (o one) Token(_ context.Context, sum []byte) (t Token, found bool, err error) {
	return Token{Identity: Identity{Name: "ci", Role: Editor}}, string(sum) == string(Sum(o.secret)), nil
}

// TestIdentify: who is let in is who shows a token that is known, and nobody else.
func TestIdentify(t *testing.T) {
	secret, _ := NewSecret()
	for header, says := range map[string]string{
		"":                          "a token is needed: send Authorization: Bearer TOKEN",
		secret:                      "the Authorization header must be: Bearer TOKEN",
		"Basic " + secret:           "the Authorization header must be: Bearer TOKEN",
		"Bearer ":                   "the token is not known",
		"Bearer " + secret[1:]:      "the token is not known",
		"Bearer " + secret + secret: "the token is not known",
		"Bearer " + secret:          "",
		"bearer  " + secret:         "",
	} {
		who, err := New(one{secret}).Identify(t.Context(), Request{Authorization: header})
		switch {
		case says == "" && (err != nil || who.Name != "ci" || who.Role != Editor):
			t.Errorf("%q: %v %v", header, who, err)
		case says != "" && (err == nil || !strings.HasPrefix(err.Error(), says)):
			t.Errorf("%q: %v", header, err)
		}
	}
}

// TestSecret: a token is 256 random bits, and what is stored of it is its SHA-256.
func TestSecret(t *testing.T) {
	seen := map[string]bool{}
	var ones [256]int
	const n = 2000
	for range n {
		secret, sum := NewSecret()
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(secret, "mp_"))
		if want := sha256.Sum256([]byte(secret)); err != nil || len(raw) != 32 || seen[secret] || !bytes.Equal(sum, want[:]) {
			t.Fatalf("%d bytes, seen %t, its hash %x, %v", len(raw), seen[secret], sum, err)
		}
		seen[secret] = true
		for i := range ones {
			ones[i] += int(raw[i/8] >> (i % 8) & 1)
		}
	}
	for i, k := range ones { // seven standard deviations
		if k < n/2-157 || k > n/2+157 {
			t.Errorf("bit %d is 1 in %d of %d", i, k, n)
		}
	}
}
