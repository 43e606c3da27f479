package golden

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/pkg/translate/arbitrary"
	"github.com/marchproxy/marchproxy/test/harness"
)

// atOnce is how many cases Envoy is shown together.
const atOnce = 300

// boundary is a case: a golden case's state with one field of one object at an edge.
type boundary struct {
	field, what string
	built       []object
}

// TestBoundaries walks every field of every kind, and shows a running Envoy each of its edges that the
// api's checks accept. A failure names field, value and Envoy's reason: what made Envoy refuse it belongs into
// the schema's rules or into translate.Check.
func TestBoundaries(t *testing.T) {
	cases := boundaries(t)
	t.Logf("%d cases", len(cases))
	reached := map[string]bool{}
	for _, c := range cases {
		reached[c.field] = true
	}
	for _, k := range resource.Kinds {
		for _, f := range fields(k.New().ProtoReflect().Descriptor()) {
			if !reached[f] && !unreached[f] {
				t.Errorf("no value of %s was accepted: a golden case must have the field, or its message", f)
			}
		}
	}
	e := startLive(t, nil)
	roots := rootsOf(t)
	refused := map[string]int{}
	for at := 0; at < len(cases); at += atOnce {
		var listeners, clusters []any
		some := cases[at:min(at+atOnce, len(cases))]
		for i, c := range some {
			l, k := alone(t, at+i, c.built, roots)
			listeners, clusters = append(listeners, l...), append(clusters, k...)
		}
		for kind, resources := range map[string][]any{"cds": clusters, "lds": listeners} {
			for n, said := range e.load(t, kind, resources) {
				if refused[cases[n].field]++; refused[cases[n].field] <= 3 {
					t.Errorf("%s %s: accepted by the checks, refused by Envoy: %.600s", cases[n].field, cases[n].what, said)
				}
			}
		}
	}
}

// unreached are fields that no edge of can be accepted: the chain, which TestPresentedCertificates is about, and what
// the api replaces or Envoy never sees.
var unreached = map[string]bool{
	"marchproxy.config.v1.Certificate.chain": true, "marchproxy.config.v1.OpaqueToken.value": true,
	"marchproxy.config.v1.OpaqueToken.sha256": true,
	"marchproxy.config.v1.Gateway.api_keys":   true, "marchproxy.config.v1.ClusterApiKey.key": true,
	"marchproxy.config.v1.ClusterApiKey.sha256": true,
}

func isDuration(f protoreflect.FieldDescriptor) bool {
	return f.Message().FullName() == "google.protobuf.Duration"
}

// fields are all of a kind's that hold values, by their full names.
func fields(m protoreflect.MessageDescriptor) []string {
	var out []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if f.Message() == nil || f.IsMap() || isDuration(f) {
			out = append(out, string(f.FullName()))
		}
		if sub := f.Message(); sub != nil && !f.IsMap() && sub.ParentFile().Package() == m.ParentFile().Package() {
			out = append(out, fields(sub)...)
		}
	}
	return out
}

// boundaries makes the cases. Each edge of a field is taken where the checks accept it, once.
func boundaries(t testing.TB) []boundary {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "pkg/translate/testdata/in/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	seen, refused := map[string]bool{}, map[string]int{}
	var out []boundary
	for _, f := range files {
		objects := golden(t, f)
		st := config.New()
		st.Apply(objects)
		before := built(t, st)
		for _, o := range objects {
			for b := range arbitrary.Boundaries(o.Message()) {
				key := b.Field + " " + b.Value
				if seen[key] || refused[key] > 12 {
					continue
				}
				if !b.Made && b.Value != "<nil>" { // where the field's message has what it needs
					refused[key]++
				}
				if len(resource.Validate(b.Message)) > 0 || !storable(b.Message) {
					continue
				}
				x, err := resource.New(o.Ref(), b.Message)
				if err != nil {
					t.Fatal(err)
				}
				changes, undo := st.Apply([]*resource.Object{x})
				if len(changes) > 0 && len(st.Check(changes)) == 0 && len(translate.Check(st, changes)) == 0 {
					seen[key] = true
					out = append(out, boundary{b.Field, b.Value + " in " + filepath.Base(f), differing(built(t, st), before)})
				}
				undo()
			}
		}
	}
	return out
}

// storable makes the checks of secrets that the api makes before it stores them.
func storable(m proto.Message) bool {
	switch m := m.(type) {
	case *configv1.Certificate:
		_, err := certificate.Leaf(m.GetChain())
		return err == nil && (m.GetPrivateKey() == "" || certificate.CheckKey(m.GetChain(), m.GetPrivateKey()) == nil)
	case *configv1.AuthPolicy:
		for _, k := range m.GetJwt().GetKeys() {
			secret, err := config.KeyBytes(k, k.GetSecret())
			if config.IsHMAC(k) == (k.GetPublicKey() != "") ||
				(config.IsHMAC(k) && (err != nil || len(secret) < config.HashSize(k))) {
				return false
			}
		}
		for _, x := range m.GetTokens() {
			if x.GetSha256() == "" {
				return false
			}
		}
	}
	return true
}

func translatorCase(t testing.TB, name string) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "pkg/translate/testdata/in", name+".yaml")
}

// golden reads the objects of one of the translator's cases.
func golden(t testing.TB, path string) []*resource.Object {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []*resource.Object
	for doc := range strings.SplitSeq(string(raw), "---\n") {
		var o struct {
			Kind, Name string
			Spec       json.RawMessage
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		k, _ := resource.KindByName(o.Kind)
		m, v := resource.DecodeSpec(k, o.Spec)
		if len(v) > 0 {
			t.Fatal(v)
		}
		x, err := resource.New(resource.Ref{Kind: o.Kind, Name: o.Name}, m)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	if !slices.ContainsFunc(out, func(o *resource.Object) bool { return o.Kind == resource.KindGateway }) {
		out = append(out, defaultGateway(t))
	}
	return out
}

// defaultGateway is the one that always exists, as it is where nobody has changed it.
func defaultGateway(t testing.TB) *resource.Object {
	t.Helper()
	x, err := resource.New(
		resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway},
		&configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: 10000}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func built(t testing.TB, st *config.State) map[string]*translate.Resource {
	t.Helper()
	b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: func(string) ([]netip.Addr, bool) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, true
	}})
	b.Rebuild(st)
	out := map[string]*translate.Resource{}
	for r := range b.All() {
		out[string(r.Type)+" "+r.Name] = r
	}
	return out
}

// differing are the resources that a change touched, and those that the others need: listeners, secrets and the
// filter configs.
func differing(now, before map[string]*translate.Resource) []object {
	same := func(typ translate.Type, name string) bool {
		key := string(typ) + " " + name
		return now[key] != nil && before[key] != nil && now[key].Version == before[key].Version
	}
	var out []object
	for _, r := range now {
		switch r.Type {
		case translate.TypeScope:
			if same(r.Type, r.Name) {
				continue
			}
		case translate.TypeExtension: // a VM is dear
			if same(r.Type, r.Name) && bytes.Contains(r.Body.GetValue(), []byte("filters.http.wasm")) {
				continue
			}
		case translate.TypeCluster, translate.TypeEndpoint:
			if same(translate.TypeCluster, r.Name) && same(translate.TypeEndpoint, r.Name) {
				continue
			}
		}
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(r.Body)
		if err != nil {
			panic(err) // it was marshalled for its version
		}
		var o object
		if err := json.Unmarshal(raw, &o); err != nil {
			panic(err) // written two lines above
		}
		out = append(out, o)
	}
	return out
}

// alone makes a case's listeners and clusters stand by themselves: with names and ports of their own, secrets and
// endpoints in their place.
func alone(t testing.TB, n int, resources []object, roots string) (listeners, clusters []any) {
	t.Helper()
	b := assemble(t, resources, roots)
	static := b["static_resources"].(object)
	secrets := map[string]object{}
	for _, s := range list(static["secrets"]) {
		secrets[s["name"].(string)] = s
	}
	for i, l := range list(static["listeners"]) {
		l["name"] = caseName(n, fmt.Sprint(i))
		l["bind_to_port"] = false
		l["address"].(object)["socket_address"].(object)["port_value"] = 1024 + (n%atOnce)*100 + i
		inlineSecrets(l, secrets)
		withoutDiscovery(l)
		l["@type"] = typePrefix + "config.listener.v3.Listener"
		listeners = append(listeners, l)
	}
	for i, c := range list(static["clusters"]) {
		if c["name"] == bootstrap.XDSCluster {
			continue
		}
		inlineSecrets(c, secrets)
		delete(c, "eds_cluster_config")
		if c["type"] == "EDS" {
			c["type"] = "STATIC"
		}
		c["name"] = caseName(n, fmt.Sprint(i))
		c["@type"] = typePrefix + "config.cluster.v3.Cluster"
		clusters = append(clusters, c)
	}
	return listeners, clusters
}

func list(v any) []object {
	switch v := v.(type) {
	case []object:
		return v
	case []any:
		out := make([]object, len(v))
		for i, x := range v {
			out[i] = x.(object)
		}
		return out
	}
	return nil
}

// inlineSecrets puts secrets where they are referred to.
func inlineSecrets(v any, secrets map[string]object) {
	switch v := v.(type) {
	case object:
		if refs, ok := v["tls_certificate_sds_secret_configs"].([]any); ok {
			delete(v, "tls_certificate_sds_secret_configs")
			var certs []any
			for _, r := range refs {
				certs = append(certs, secrets[r.(object)["name"].(string)]["tls_certificate"])
			}
			v["tls_certificates"] = certs
		}
		if ref, ok := v["validation_context_sds_secret_config"].(object); ok {
			if own, combined := v["default_validation_context"].(object); combined {
				own["trusted_ca"] = secrets[ref["name"].(string)]["validation_context"].(object)["trusted_ca"]
				delete(v, "validation_context_sds_secret_config")
				delete(v, "default_validation_context")
				for k, x := range own {
					v[k] = x
				}
			} else {
				delete(v, "validation_context_sds_secret_config")
				v["validation_context"] = secrets[ref["name"].(string)]["validation_context"]
			}
		}
		if c, ok := v["combined_validation_context"].(object); ok {
			inlineSecrets(c, secrets)
			delete(v, "combined_validation_context")
			v["validation_context"] = c
		}
		for _, x := range v {
			inlineSecrets(x, secrets)
		}
	case []any:
		for _, x := range v {
			inlineSecrets(x, secrets)
		}
	}
}

// withoutDiscovery has a listener wait for nothing: a filter that is not part of the case has an empty config, and so
// is the route table.
func withoutDiscovery(v any) {
	switch v := v.(type) {
	case object:
		if _, named := v["name"]; named {
			if c, there := v["typed_config"]; there && c == nil {
				v["typed_config"] = object{"@type": typePrefix + "extensions.filters.http.header_mutation.v3.HeaderMutation"}
				if name, _ := v["name"].(string); strings.HasPrefix(name, "marchproxy.connections") {
					v["typed_config"] = object{
						"@type": typePrefix + "extensions.filters.network.connection_limit.v3.ConnectionLimit", "stat_prefix": "none",
						"max_connections": 1000,
					}
				}
			}
		}
		if _, scoped := v["scoped_routes"]; scoped {
			delete(v, "scoped_routes")
			v["route_config"] = object{"name": "none"}
		}
		for _, x := range v {
			withoutDiscovery(x)
		}
	case []any:
		for _, x := range v {
			withoutDiscovery(x)
		}
	}
}
