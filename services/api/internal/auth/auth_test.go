package auth

import (
	"context"
	"strings"
	"testing"
)

type none struct{}

func (none) Token(context.Context, []byte) (t Token, found bool, err error) {
	return t, false, nil
}

// TestLocal: who is let in without a token in development, and that those on this machine who are not are
// told why.
func TestLocal(t *testing.T) {
	const token = "a token is needed: send Authorization: Bearer TOKEN"
	for name, c := range map[string]struct {
		r    Request
		says string // "" for let in
	}{
		"by name":               {Request{Remote: "127.0.0.1:4000", Host: "localhost:8000"}, ""},
		"by address":            {Request{Remote: "[::1]:4000", Host: "[::1]:8000"}, ""},
		"by mapped address":     {Request{Remote: "[::ffff:127.0.0.1]:4000", Host: "127.0.0.1"}, ""},
		"under another name":    {Request{Remote: "127.0.0.1:4000", Host: "api-server:19000"}, `and the Host of this request is "api-server:19000"`},
		"without a name":        {Request{Remote: "127.0.0.1:4000"}, `the Host of this request is ""`},
		"a page":                {Request{Remote: "127.0.0.1:4000", Host: "localhost", Origin: "https://evil.test"}, "a request with an Origin header comes from a web page"},
		"from another machine":  {Request{Remote: "192.0.2.1:4000", Host: "localhost:8000"}, token},
		"another, foreign name": {Request{Remote: "192.0.2.1:4000", Host: "api-server:8000"}, token},
	} {
		who, err := New(none{}, true).Identify(t.Context(), c.r)
		switch {
		case c.says == "":
			if err != nil || who.Name != "dev" || who.Role != Admin {
				t.Errorf("%s: %v %v", name, who, err)
			}
		case err == nil || !strings.HasPrefix(err.Error(), token) || !strings.HasSuffix(err.Error(), c.says):
			t.Errorf("%s: %v", name, err)
		}
		if _, err := New(none{}, false).Identify(t.Context(), c.r); err == nil || err.Error() != token {
			t.Errorf("%s, in production: %v", name, err)
		}
	}
	long := Request{Remote: "127.0.0.1:4000", Host: strings.Repeat("x", 5000)}
	if _, err := New(none{}, true).Identify(t.Context(), long); err == nil || len(err.Error()) > 500 {
		t.Errorf("a long Host is said whole: %v", err)
	}
}
