package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// TestEveryFeatureIsTaken applies the translator's golden cases to a running system, one after the other:
// Envoy must take each.
func TestEveryFeatureIsTaken(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "pkg/translate/testdata/in/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	s := start(t, "--no-demo")
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".yaml"), func(t *testing.T) {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var resources []any
			for doc := range strings.SplitSeq(string(raw), "---\n") {
				var o map[string]any
				if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
					t.Fatal(err)
				}
				if o["kind"] == "CertificateChallenge" {
					continue // the server alone writes it: TestIssuance has it do so
				}
				if o["kind"] == "Gateway" { // on the ports that this system has
					listeners := []any{map[string]any{"name": "http", "port": s.ProxyPort}}
					if o["spec"].(map[string]any)["certificate_issuer"] != nil {
						listeners = append(listeners, map[string]any{"name": "https", "port": ports[0], "protocol": "https"})
					}
					o["spec"].(map[string]any)["listeners"] = listeners
				} else {
					if o["kind"] == "License" { // its facts say that it has a key
						o["spec"].(map[string]any)["key"] = licenseKey()
					}
					resources = append(resources, o)
					continue
				}
				o["spec"].(map[string]any)["api_keys"] = keys(t, s)
				resources = append(resources, o)
			}
			answer := call(t, s, "POST", s.API+"/v1/apply?wait=live", map[string]any{"resources": resources}, 200)
			if l := answer["live"].(map[string]any); l["state"] != "live" {
				t.Errorf("%v", l)
			}
		})
	}
}
