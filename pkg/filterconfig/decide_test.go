package filterconfig_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/filterconfig"
)

// TestDecide: the filter's own code lets pass, refuses and changes headers, many at once, and one that fails is said to.
func TestDecide(t *testing.T) {
	const token = "c2VjcmV0LXRva2VuLW9mLWEtbWFjaGluZQ=="
	sum := sha256.Sum256([]byte(token))
	auth := `{"per_route":true,"default_policy":"p","strip_headers":["x-user"],"policies":[{"name":"p","strip":true,` +
		`"tokens":[{"sha256":"` + hex.EncodeToString(sum[:]) + `"}],"exempt_paths":[{"path":"/free"}]}]}`
	license := `{"per_route":true,"features":["a"],"expires_at":1800000000,"gates":[{"path":"/gated","feature":"b"}]}`
	request := func(path string, more ...string) []filterconfig.Header {
		out := []filterconfig.Header{{Name: ":authority", Value: "a.test"}, {Name: ":path", Value: path}}
		for i := 0; i < len(more); i += 2 {
			out = append(out, filterconfig.Header{Name: more[i], Value: more[i+1]})
		}
		return out
	}
	now := time.Unix(1_700_000_000, 0)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for _, c := range []struct {
				what, filter, text, route string
				headers                   []filterconfig.Header
				now                       time.Time
				status                    int
				details                   string
				without                   string // a header that does not go on
			}{
				{"no token", "auth", auth, "", request("/"), now, 401, "marchproxy_auth_missing", ""},
				{"a token", "auth", auth, "", request("/", "authorization", "Bearer "+token), now, 0, "", "authorization"},
				{"a wrong one", "auth", auth, "", request("/", "authorization", "Bearer x"), now, 401, "marchproxy_auth_unknown_token", ""},
				{"an exempt path", "auth", auth, "", request("/free", "x-user", "me"), now, 0, "", "x-user"},
				{"a route without a policy", "auth", auth, "|r|-|", request("/"), now, 0, "", ""},
				{"a route of another policy", "auth", auth, "|r|q|", request("/"), now, 503, "marchproxy_auth_unknown_policy", ""},
				{"a gate", "license", license, "", request("/gated/x"), now, 402, "marchproxy_license_feature_not_licensed", ""},
				{"a feature", "license", license, "|r||a", request("/"), now, 0, "", ""},
				{
					"a license's end", "license", license, "|r||a", request("/"), time.Unix(1_800_000_000, 0), 402,
					"marchproxy_license_license_expired", "",
				},
			} {
				refusal, goesOn, err := filterconfig.Decide(t.Context(), c.filter, []byte(c.text), filterconfig.Request{
					Headers: c.headers, Route: c.route, Now: c.now,
				})
				switch {
				case err != nil:
					t.Errorf("%s: %v", c.what, err)
				case c.status == 0 && refusal != nil:
					t.Errorf("%s: refused: %+v", c.what, *refusal)
				case c.status == 0:
					if slices.ContainsFunc(goesOn, func(h filterconfig.Header) bool { return h.Name == c.without }) {
						t.Errorf("%s: %s goes on", c.what, c.without)
					}
				case refusal == nil || refusal.Status != c.status || refusal.Details != c.details ||
					!strings.HasPrefix(refusal.Body, "{"):
					t.Errorf("%s: %+v, want %d %s", c.what, refusal, c.status, c.details)
				}
			}
		})
	}
	all.Wait()
	for _, text := range []string{"", "{", strings.Repeat(" ", 17<<20)} {
		if _, _, err := filterconfig.Decide(t.Context(), "auth", []byte(text), filterconfig.Request{}); err == nil {
			t.Errorf("a configuration that it refuses decided: %.20q", text)
		}
	}
}
