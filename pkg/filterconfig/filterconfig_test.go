package filterconfig_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/filterconfig"
)

// TestRefused: each filter takes what is good, says why it does not take what is not, and goes on after that; many
// ask at once.
func TestRefused(t *testing.T) {
	good := `{"policies":[{"name":"p","tokens":[{"sha256":"` + strings.Repeat("0", 64) + `"}]}]}`
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for _, c := range []struct{ filter, text, says string }{
				{"auth", good, ""},
				{"auth", `{"policies":[{"name":"p","tokens":[{"sha256":"00"}]}]}`, "sha256"},
				{"auth", `{"strip_headers":["cookie"]}`, "header"},
				{"auth", "", "JSON"},
				{"auth", strings.Repeat("[", 100000), "JSON"},
				{"auth", strings.Repeat(" ", 17<<20), "host gave none"}, // more than a filter is given in one piece
				{"auth", good, ""},
				{"license", `{"features":["a"],"gates":[{"path":"/x","feature":"a"}]}`, ""},
				{"license", `{"expires_at":253402300800}`, "bounds"},
				{"metrics", "{}", ""},
				{"nobody", "{}", "nobody"},
			} {
				why := filterconfig.Refused(c.filter, []byte(c.text))
				if (why == "") != (c.says == "") || !strings.Contains(why, c.says) {
					t.Errorf("%s %.60q: refused because of %q, want %q", c.filter, c.text, why, c.says)
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkRefused is what a write of a policy pays for the check.
func BenchmarkRefused(b *testing.B) {
	key := `{"kid":"a","alg":"HS256","k":"` + strings.Repeat("A", 43) + `"}`
	text := []byte(`{"policies":[{"name":"p","jwt":{"keys":[` + key + `],"leeway_seconds":60}}]}`)
	if err := filterconfig.Prepare(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if why := filterconfig.Refused("auth", text); why != "" {
			b.Fatal(why)
		}
	}
}
