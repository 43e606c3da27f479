package monitoring

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/marchproxy/marchproxy/test/harness"
)

// alert is a rule of alerts.yml.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func alerts(t *testing.T) (out []alert) {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alert }
	}
	if err := yaml.Unmarshal([]byte(read(t, "deployments", "prometheus", "alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

// promtool is Debian's, which scripts/needs installs.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", "needs"), "promtool").
		CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Dir = filepath.Join(root, "deployments", "prometheus")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestAlertRules: Prometheus takes the rules and the configurations; each alert fires in its unit test and is quiet in
// another one, has a runbook, and is made of metrics that docs/metrics.md has.
func TestAlertRules(t *testing.T) {
	promtool(t, "check", "rules", "alerts.yml")
	promtool(t, "test", "rules", "alerts_test.yml")
	promtool(t, "check", "config", "--syntax-only", "prometheus.yml")
	promtool(t, "check", "config", "--syntax-only", "prometheus.compose.yml")
	var tests struct {
		Tests []struct {
			Name string `json:"name"`
			Rule []struct {
				Alert string `json:"alertname"`
				Exp   []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "deployments", "prometheus", "alerts_test.yml")), &tests); err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, x := range tests.Tests {
		for _, r := range x.Rule {
			fires[r.Alert] = fires[r.Alert] || len(r.Exp) > 0
			quiet[r.Alert] = quiet[r.Alert] || len(r.Exp) == 0
		}
	}
	runbooks, known := read(t, "docs", "runbooks.md"), documented(t)
	var names []string
	for _, a := range alerts(t) {
		names = append(names, a.Alert)
		if !fires[a.Alert] || !quiet[a.Alert] {
			t.Errorf("alerts_test.yml lacks a case in which %s fires, or one in which it is quiet", a.Alert)
		}
		if !strings.Contains(runbooks, "\n## "+a.Alert+"\n") || a.Annotations["runbook"] != "docs/runbooks.md#"+
			strings.ToLower(a.Alert) {
			t.Errorf("%s has no section in docs/runbooks.md, or does not name it (%s)", a.Alert, a.Annotations["runbook"])
		}
		if a.Labels["severity"] == "" || a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
			t.Errorf("%s has no severity, summary or description", a.Alert)
		}
		used := ofOurs.FindAllString(a.Expr, -1)
		for _, m := range used {
			if _, there := known[m]; !there {
				t.Errorf("%s looks at %s, which docs/metrics.md does not have", a.Alert, m)
			}
		}
		if len(used) == 0 && !strings.HasPrefix(a.Expr, "up{") {
			t.Errorf("%s looks at nothing of ours: %s", a.Alert, a.Expr)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(runbooks, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("docs/runbooks.md is about %s, which is no alert", m[1])
		}
	}
}

// ofOurs finds our metrics in a query.
var ofOurs = regexp.MustCompile(`\bmarchproxy_\w+`)
