package security

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// TestOpenPages: what is told without a token has nothing of the configuration but the names of certificates; what the
// xDS server lists for marchproxy doctor has names, and no content.
func TestOpenPages(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	chain, private := newCA(t, "authority").issue(t, "shown-host.example.com")
	for path, spec := range map[string]any{
		"certificates/shown-certificate": map[string]string{"chain": chain, "private_key": private},
		"services/shown-service": map[string]any{
			"endpoints": []any{map[string]any{"host": "192.0.2.77", "port": 47113}},
		},
		"auth-policies/hidden-policy": map[string]any{"tokens": []any{map[string]string{
			"name": "hidden-token-name", "value": "hidden-token-value-0123456789",
		}}},
		"licenses/hidden-license": map[string]any{"features": []string{"hidden-feature"}},
		"rate-limit-policies/hidden-limit": map[string]any{
			"cidrs": []string{"198.51.100.0/24"}, "packets_per_second": 100,
		},
	} {
		s.Want(t, "PUT", s.API+"/v1/"+path, map[string]any{"spec": spec}, 201)
	}
	s.Want(t, "PUT", s.API+"/v1/routes/hidden-route?wait=live", `{"owner":"hidden-owner","labels":{"hidden-label":"x"},
		"spec":{"hosts":["shown-host.example.com"],"auth_policy":"hidden-policy","path":{"prefix":"/hidden-path"},
		"backends":[{"service":"shown-service"}]}}`, 201)
	s.Want(t, "POST", s.API+"/v1/tokens", `{"name":"hidden-actor","role":"viewer"}`, 201)
	open := func(url string) string {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }() // it was read
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s %v", url, resp.StatusCode, raw, err)
		}
		return string(raw)
	}
	hidden := []string{"hidden", "192.0.2.77", ":47113", `"47113`, "198.51.100", "MIIE", "BEGIN"}
	shown := []string{"shown-service", "shown-host"}
	for _, url := range []string{
		s.API + "/metrics", s.API + "/healthz", s.API + "/readyz", s.API + "/docs/api.html", s.API + "/v1/openapi.json",
		s.XDS + "/metrics", s.XDS + "/healthz", s.XDS + "/readyz", s.XDS + "/v1/version",
	} {
		text := open(url)
		words := append(shown[:len(shown):len(shown)], hidden...)
		if strings.HasSuffix(url, "/docs/api.html") || strings.HasSuffix(url, "/v1/openapi.json") {
			words = []string{"shown-", "hidden-", "192.0.2.77"} // its examples have such words as the others
		}
		for _, word := range words {
			if strings.Contains(text, word) {
				t.Errorf("%s shows %q", url, word)
			}
		}
	}
	if !strings.Contains(open(s.API+"/metrics"), "shown-certificate") {
		t.Error("/metrics does not say when a certificate ends")
	}
	listed := open(s.XDS + "/v1/resources")
	for _, word := range shown {
		if !strings.Contains(listed, word) {
			t.Errorf("/v1/resources does not list %s", word)
		}
	}
	for _, word := range []string{
		"hidden-token", "hidden-path", "hidden-feature", "hidden-owner", "hidden-label", "192.0.2.77", "BEGIN",
	} {
		if strings.Contains(listed, word) {
			t.Errorf("/v1/resources shows %q", word)
		}
	}
}
