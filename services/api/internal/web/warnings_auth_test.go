package web

import (
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestPowerlessTokens: a write says which opaque tokens its policy always refuses.
func TestPowerlessTokens(t *testing.T) {
	const key = `"keys":[{"kid":"k","algorithm":"HS256"}]`
	tokens := `"tokens":[{"name":"ci","sha256":"` + strings.Repeat("0", 64) + `","subject":"ci"},{"name":"bare",` +
		`"sha256":"` + strings.Repeat("1", 64) + `"}]`
	for claims, want := range map[string][]string{
		``: nil,
		`,"required_claims":[{"claim":["realm_access","roles"]}]`: {
			"$.tokens[0]",
			"$.tokens[1]",
		},
		`,"required_claims":[{"claim":["sub"]}]`: {
			"$.tokens[1]",
		},
		`,"required_claims":[{"claim":["sub"],"values":["a","ci"]}]`: {
			"$.tokens[1]",
		},
		`,"required_claims":[{"claim":["sub"],"values":["a"]}]`: {
			"$.tokens[0]",
			"$.tokens[1]",
		},
		`,"required_claims":[{"claim":["sub"],"values":["ci"],"words":true},{"claim":["x"]},{"claim":["y"]}]`: {
			"$.tokens[0]",
			"$.tokens[1]",
		},
	} {
		k, _ := resource.KindByName(resource.KindAuthPolicy)
		m, v := resource.DecodeSpec(k, []byte(`{"jwt":{`+key+claims+`},`+tokens+`}`))
		if len(v) > 0 {
			t.Fatal(v)
		}
		o, err := resource.New(resource.Ref{Kind: k.Name, Name: "p"}, m)
		if err != nil {
			t.Fatal(err)
		}
		got := (&API{}).warnings([]config.Change{{After: o}}, nil)
		var paths []string
		for _, w := range got {
			paths = append(paths, w.Path)
			if !strings.Contains(w.Message, "always answered 403") || w.Kind != k.Name || w.Name != "p" {
				t.Errorf("%s: %+v", claims, w)
			}
		}
		if strings.Join(paths, " ") != strings.Join(want, " ") {
			t.Errorf("%s: warned of %v, want %v", claims, paths, want)
		}
	}
}
