package monitoring

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// grafana are the values of Grafana's variables for a check of a query.
var grafana = strings.NewReplacer("$__rate_interval", "1m", "$route", ".*", "$service", ".*", "$instance", ".*")

// labels are where a query names labels: matchers, and what it sums by.
var labels = regexp.MustCompile(`\{[^}]*\}|by \([^)]*\)`)

// queries are the PromQL expressions of a dashboard, and the metrics that its variables take their values from.
func queries(v any) (out []string) {
	switch v := v.(type) {
	case map[string]any:
		for key, x := range v {
			text, is := x.(string)
			switch {
			case is && key == "expr":
				out = append(out, text)
			case is && strings.HasPrefix(text, "label_values("):
				metric, _, _ := strings.Cut(strings.TrimPrefix(text, "label_values("), ",")
				out = append(out, metric)
			default:
				out = append(out, queries(x)...)
			}
		}
	case []any:
		for _, x := range v {
			out = append(out, queries(x)...)
		}
	}
	return out
}

// TestDashboards: Prometheus takes every query of every dashboard, and each is made of metrics that docs/metrics.md
// has.
func TestDashboards(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "deployments", "grafana", "*.json"))
	if err != nil || len(files) < 6 {
		t.Fatalf("only %d dashboards: %v", len(files), err)
	}
	known, used := documented(t), regexp.MustCompile(`\b(?:marchproxy|envoy|process)_\w+`)
	rules := "groups:\n  - name: dashboards\n    rules:\n"
	for _, f := range files {
		var dashboard any
		raw, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(raw, &dashboard)
		}
		if err != nil {
			t.Fatal(err)
		}
		all := queries(dashboard)
		if len(all) < 4 {
			t.Errorf("%s has only %d queries", f, len(all))
		}
		for i, q := range all {
			q = grafana.Replace(q)
			if strings.Contains(q, "$") {
				t.Errorf("%s: %s has a variable that this test does not know", f, q)
			}
			quoted, err := json.Marshal(q)
			if err != nil {
				t.Fatal(err)
			}
			rules += fmt.Sprintf("      - {record: %s_%d, expr: %s}\n", strings.TrimSuffix(filepath.Base(f), ".json"), i, quoted)
			names := used.FindAllString(labels.ReplaceAllString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(q, ""), ""), -1)
			if len(names) == 0 {
				t.Errorf("%s: %s asks for nothing", f, q)
			}
			for _, name := range names {
				if _, there := known[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")]; !there {
					t.Errorf("%s asks for %s, which docs/metrics.md does not have", f, name)
				}
			}
		}
	}
	path := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}
