package golden

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/harness"
)

const typePrefix = "type.googleapis.com/envoy."

// TestTranslator puts each golden output of pkg/translate into a static bootstrap: what refers to xDS is
// put in its place, so that Envoy reads every word of it. Variants take the place of the resources that they are of.
func TestTranslator(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "pkg/translate/testdata/out")
	bare := bareGateway(t, dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.diff"))
	if err != nil || len(files) == 0 {
		t.Fatal("no golden outputs", err)
	}
	roots := rootsOf(t)
	for _, f := range files {
		diff, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(f), ".diff")
		envoyTakes(t, name, output(t, name, bare, diff), bare, roots)
	}
	envoyTakes(t, "bare", bare, nil, roots)
}

// assemble makes a bootstrap of xDS resources, each with its @type.
func assemble(t testing.TB, resources []object, roots string) object {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(root, "wasm-filters", "dist")
	byType := map[string][]object{}
	for _, o := range resources {
		typ, ok := strings.CutPrefix(o["@type"].(string), typePrefix)
		if !ok {
			t.Fatalf("type %v", o["@type"])
		}
		delete(o, "@type")
		local(o, roots, modules)
		typ = typ[strings.LastIndexByte(typ, '.')+1:]
		byType[typ] = append(byType[typ], o)
	}
	endpoints := map[string]object{}
	for _, e := range byType["ClusterLoadAssignment"] {
		endpoints[e["cluster_name"].(string)] = e
	}
	b := base(t)
	configs := map[string]any{}
	for _, e := range byType["TypedExtensionConfig"] {
		configs[e["name"].(string)] = e["typed_config"]
	}
	for _, l := range byType["Listener"] {
		fillFilters(l, configs)
		withoutDemand(l)
	}
	static := b["static_resources"].(object)
	clusters := static["clusters"].([]any)
	for _, c := range byType["Cluster"] {
		name := c["name"].(string)
		if strings.HasPrefix(name, "certificates/") {
			continue // see withoutDemand
		}
		if e := endpoints[name]; e != nil {
			delete(c, "eds_cluster_config")
			c["type"], c["load_assignment"] = "STATIC", e
			delete(endpoints, name)
		}
		clusters = append(clusters, c)
	}
	for name := range endpoints {
		t.Errorf("endpoints of %s, which is no cluster", name)
	}
	static["clusters"] = clusters
	var listeners []any
	for _, l := range byType["Listener"] {
		listeners = append(listeners, l)
	}
	for _, s := range byType["ScopedRouteConfiguration"] {
		name, _, _ := strings.Cut(s["name"].(string), "/")
		for _, l := range byType["Listener"] {
			if l["name"] == name {
				listeners = append(listeners, withTable(l, s, len(listeners)))
			}
		}
	}
	static["listeners"] = listeners
	static["secrets"] = byType["Secret"]
	return b
}

// withoutDemand gives the chain with certificates on demand those of the first certificate: Envoy's validation ends
// with a segmentation fault where it comes to certificates on demand. The tests of services/xds/internal/fleet have
// them in an Envoy that serves.
func withoutDemand(listener object) {
	chains := map[string]object{}
	for _, c := range listener["filter_chains"].([]any) {
		if name, ok := c.(object)["name"].(string); ok {
			chains[name] = c.(object)
		}
	}
	if c := chains["on-demand"]; c != nil {
		c["transport_socket"] = deepCopy(chains["first"]["transport_socket"])
	}
}

// fillFilters puts the configs of a listener's filters where it would get them by xDS.
func fillFilters(v any, configs map[string]any) {
	switch v := v.(type) {
	case object:
		if _, discovered := v["config_discovery"]; discovered {
			delete(v, "config_discovery")
			v["typed_config"] = configs[v["name"].(string)]
		}
		for x := range maps.Values(v) {
			fillFilters(x, configs)
		}
	case []any:
		for _, x := range v {
			fillFilters(x, configs)
		}
	}
}

// withTable is a listener with one scope's table in the place of all its scopes, on a port of its own.
func withTable(listener, scope object, n int) object {
	out := deepCopy(listener).(object)
	out["name"] = scope["name"]
	out["address"].(object)["socket_address"].(object)["port_value"] = 20000 + n
	for _, chain := range out["filter_chains"].([]any) {
		for _, f := range chain.(object)["filters"].([]any) {
			c, _ := f.(object)["typed_config"].(object) // a filter that is not in use has none
			if _, scoped := c["scoped_routes"]; scoped {
				delete(c, "scoped_routes")
				c["route_config"] = scope["route_configuration"]
			}
		}
	}
	return out
}

// local has secrets come from the bootstrap, and the system's certificate authorities from here: the
// machine may have none.
func local(v any, roots, modules string) {
	switch v := v.(type) {
	case object:
		if _, named := v["name"]; named {
			delete(v, "sds_config")
		}
		if f, ok := v["filename"].(string); ok && strings.HasSuffix(f, "ca-certificates.crt") {
			delete(v, "filename")
			v["inline_string"] = roots
		}
		if f, ok := v["filename"].(string); ok && strings.HasSuffix(f, ".wasm") {
			v["filename"] = filepath.Join(modules, filepath.Base(f))
		}
		for x := range maps.Values(v) {
			local(x, roots, modules)
		}
	case []any:
		for _, x := range v {
			local(x, roots, modules)
		}
	}
}

func deepCopy(v any) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for k, x := range v {
			out[k] = deepCopy(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = deepCopy(x)
		}
		return out
	}
	return v
}

// rootsOf is a certificate authority's certificate.
func rootsOf(t testing.TB) string {
	t.Helper()
	a, err := authority.New("test authority", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a.PEM
}
