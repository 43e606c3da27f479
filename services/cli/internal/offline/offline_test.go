package offline_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
	"github.com/marchproxy/marchproxy/services/cli/internal/offline"
)

func documents(t *testing.T, text string) []*manifest.Document {
	t.Helper()
	docs, err := manifest.Read([]string{"-"}, strings.NewReader(text), func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

const (
	web   = "kind: Service\nname: web\nspec: {endpoints: [{host: 127.0.0.1, port: 8080}]}\n---\n"
	route = "kind: Route\nname: r\nspec: {hosts: [a.example.com], backends: [{service: web}]}\n---\n"
)

// TestCheck: everything that is wrong is found at once, each where it stands, and nothing that is right. What one
// mistake entails is not said a second time.
func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		files   string
		partial bool
		want    []string // document, path, rule
	}{
		"nothing":        {"", false, nil},
		"all is well":    {web + route, false, nil},
		"in other order": {route + web, false, nil},
		"a certificate that an issuer will issue": {
			"kind: CertificateIssuer\nname: le\nspec: {directory: letsencrypt, terms_agreed: true}\n---\n" +
				"kind: Certificate\nname: a\nspec: {issuer: le, names: [a.example.com], gateways: [default]}\n---\n" +
				"kind: Gateway\nname: default\nspec: {listeners: [{name: https, port: 443, protocol: https}]}\n", false, nil,
		},
		"two mistakes of one and one of another": {
			"kind: Service\nname: s\nspec: {endpoints: [{host: '', port: 70000}]}\n---\nkind: Route\nname: Upper\nspec: " +
				"{direct_response: {status: 200}}\n",
			false,
			[]string{ // an empty host breaks two rules
				"Service/s $.spec.endpoints[0].host", "Service/s $.spec.endpoints[0].host", "Service/s $.spec.endpoints[0].port",
				"Route/Upper $.name",
			},
		},
		"an unknown kind": {
			"kind: Rout\nname: r\nspec: {}\n---\n" + web, false,
			[]string{"Rout/r $.kind"},
		},
		"an unknown field": {
			"kind: Service\nname: s\nspec: {endpoint: []}\n", false,
			[]string{"Service/s $.spec.endpoint"},
		},
		"labels that nobody could select by": {"kind: Service\nname: s\nlabels: {'': x}\nspec: " +
			"{endpoints: [{host: 127.0.0.1, port: 1}]}\n", false, []string{"Service/s $.labels"}},
		"a service that is nowhere": {
			route, false,
			[]string{"Route/r $.spec.backends[0].service"},
		},
		"a part refers to what is elsewhere": {route, true, nil},
		"a part with a mistake of its own": {
			strings.Replace(route, "a.example.com", "not a host", 1),
			true,
			[]string{"Route/r $.spec.hosts[0]"},
		},
		"what refers to something mistaken": {
			strings.Replace(web, "8080", "70000", 1) + route, false,
			[]string{"Service/web $.spec.endpoints[0].port"},
		},
		"two routes for the same requests, which both are told": {web + route + strings.Replace(route, "name: r\n",
			"name: r2\n", 1), false, []string{"Route/r $.spec.hosts[0]", "Route/r2 $.spec.hosts[0]"}},
		"a listener that the gateway has not": {web + strings.Replace(route, "hosts:",
			"listeners: [https], hosts:", 1), false, []string{"Route/r $.spec.listeners[0]"}},
		"the same in a part": {web + strings.Replace(route, "hosts:",
			"listeners: [https], hosts:", 1), true, nil},
		"the default's listener, assumed": {web + strings.Replace(route, "hosts:",
			"listeners: [http], hosts:", 1), false, nil},
		"the default without it": {
			"kind: Gateway\nname: default\nspec: {listeners: [{name: web, port: 8080}]}\n---\n" + web + strings.Replace(route,
				"hosts:", "listeners: [http], hosts:", 1),
			true,
			[]string{"Route/r $.spec.listeners[0]"},
		},
		"what Envoy alone would refuse": {"kind: Route\nname: r\nspec: {path: {regex: '/(?=a)'}, direct_response: {status: " +
			"200}}\n", false, []string{"Route/r $.spec.path.regex"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range offline.Check(documents(t, c.files), c.partial) {
				if f.Message == "" || f.Rule == "" {
					t.Errorf("%s says nothing, or of no rule: %+v", f.Path, f)
				}
				got = append(got, f.Document.Ref().String()+" "+f.Path)
			}
			if len(got) != len(c.want) || !slices.EqualFunc(got, c.want, strings.HasPrefix) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// TestCertificates: what the api takes out of a spec before it stores it is looked at as it would; a key that an export
// left out, because only the api has it, is not missed.
func TestCertificates(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "pkg", "translate", "testdata", "in", "https.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var certificate string
	for doc := range strings.SplitSeq(string(raw), "---\n") {
		if strings.HasPrefix(doc, "kind: Certificate\n") {
			certificate = doc
		}
	}
	chain, _, found := strings.Cut(certificate, "  private_key:")
	if !found {
		t.Fatalf("the translator's case has another form now:\n%s", certificate)
	}
	for name, c := range map[string]struct{ file, path string }{
		"with its key":        {certificate, ""},
		"with another's key":  {chain + "  private_key: no key\n", "$.spec.private_key"},
		"as export wrote it":  {chain + "  facts: {has_private_key: true}\n", ""},
		"with no certificate": {"kind: Certificate\nname: c\nspec: {chain: none, private_key: none}\n", "$.spec.chain"},
	} {
		t.Run(name, func(t *testing.T) {
			found := offline.Check(documents(t, c.file), false)
			switch {
			case c.path == "" && len(found) > 0:
				t.Errorf("found %+v", found)
			case c.path != "" && (len(found) != 1 || found[0].Path != c.path):
				t.Errorf("found %+v, want it at %s", found, c.path)
			}
		})
	}
}

// TestCount says how much was looked at, by kind.
func TestCount(t *testing.T) {
	for text, want := range map[string]string{
		"": "", web: "1 Service", web + route + strings.Replace(route, "name: r\n", "name: r2\n", 1): "1 Service, 2 Route",
	} {
		if got := offline.Count(documents(t, text)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
