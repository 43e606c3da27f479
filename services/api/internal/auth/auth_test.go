package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

// one knows one token, and one session of it, which has ended where its secret begins with old.
type one struct{ secret string }

func (o one) Token(_ context.Context, sum []byte) (t Token, found bool, err error) {
	return Token{Identity: Identity{Name: "ci", Role: Editor}}, string(sum) == string(Sum(o.secret)), nil
}

func (o one) Session(_ context.Context, sum []byte) (t Token, found bool, err error) {
	end := time.Hour
	if string(sum) == string(Sum("old"+o.secret)) {
		end, found = -time.Hour, true
	}
	found = found || string(sum) == string(Sum("session"+o.secret))
	return Token{Identity: Identity{Name: "browser", Role: Viewer}, ExpiresAt: time.Now().Add(end)}, found, nil
}

// TestIdentifySession: a session's secret lets in as a session alone, a token's as a token alone, and where both come
// the token counts.
func TestIdentifySession(t *testing.T) {
	secret, _ := NewSecret()
	for _, c := range []struct{ authorization, session, name, says string }{
		{"", "session" + secret, "browser", ""},
		{"Bearer " + secret, "session" + secret, "ci", ""},
		{"Bearer wrong", "session" + secret, "", "the token is not known"},
		{"Bearer session" + secret, "", "", "the token is not known"},
		{"", secret, "", "the session has ended; sign in again"},
		{"", "old" + secret, "", "the session has ended; sign in again"},
	} {
		who, err := New(one{secret}).Identify(t.Context(), Request{Authorization: c.authorization, Session: c.session})
		if who.Name != c.name || (err == nil) != (c.says == "") || err != nil && !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("%q and %q: %v %v", c.authorization, c.session, who, err)
		}
	}
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
