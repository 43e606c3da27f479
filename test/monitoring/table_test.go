package monitoring

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// metric is what a name stands for: its type, and its labels in order, with commas.
type metric struct{ kind, labels string }

func read(t *testing.T, path ...string) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

var (
	row    = regexp.MustCompile("(?m)^\\| `((?:marchproxy|envoy|process)_\\w+)` \\|([^|]*)\\| (\\w+) \\| .+ \\|$")
	quoted = regexp.MustCompile("`(\\w+)`")
)

// documented are the metrics of docs/metrics.md.
func documented(t *testing.T) map[string]metric {
	t.Helper()
	out := map[string]metric{}
	for _, m := range row.FindAllStringSubmatch(read(t, "docs", "metrics.md"), -1) {
		var labels []string
		for _, l := range quoted.FindAllStringSubmatch(m[2], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		if _, twice := out[m[1]]; twice {
			t.Errorf("docs/metrics.md has %s twice", m[1])
		}
		out[m[1]] = metric{m[3], strings.Join(labels, ",")}
	}
	if len(out) < 40 {
		t.Fatalf("docs/metrics.md has only %d metrics: the form of its tables is another one", len(out))
	}
	return out
}

// TestMetricsInCode: docs/metrics.md has the metrics that the code of the services names, and no others of theirs.
func TestMetricsInCode(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	known := documented(t)
	named := map[string]bool{}
	for file, prefix := range map[string]string{
		"services/api/internal/web/metrics.go": "", "services/api/internal/web/warnings.go": "",
		"services/api/internal/web/issuance.go":        "",
		"services/xds/internal/server/parts.go":        "marchproxy_xds_",
		"services/agent/internal/server/metrics.go":    "marchproxy_agent_",
		"services/discover/internal/server/metrics.go": "marchproxy_discover_",
	} {
		raw, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:gauge|count|flag|desc|NewDesc|Name:)[ (]+"([a-z_]+[a-z])"`).
			FindAllStringSubmatch(string(raw), -1) {
			name := m[1]
			if !strings.HasPrefix(name, "marchproxy_") {
				name = prefix + name
			}
			named[name] = true
			if _, there := known[name]; !there {
				t.Errorf("%s makes %s, which docs/metrics.md does not have", file, name)
			}
		}
	}
	for name := range known {
		if regexp.MustCompile(`^marchproxy_(api|xds|agent|discover)_`).MatchString(name) && !named[name] {
			t.Errorf("docs/metrics.md has %s, which no service makes", name)
		}
	}
}
