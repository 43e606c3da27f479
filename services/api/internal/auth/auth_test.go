package auth

import (
	"context"
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
