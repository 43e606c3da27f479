package golden

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate/arbitrary"
	"github.com/marchproxy/marchproxy/test/harness"
)

// configurations is how many random ones Envoy is shown; MARCHPROXY_CONFIGURATIONS asks for more.
const configurations = 40

// TestRandomConfigurations: what the checks accept, a running Envoy accepts. A failure prints the objects; what made
// Envoy refuse them belongs into translate.Check, and here as a case of its own.
func TestRandomConfigurations(t *testing.T) {
	n := configurations
	if v := os.Getenv("MARCHPROXY_CONFIGURATIONS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	certs, roots := certificates(t), rootsOf(t)
	e := startLive(t, nil)
	kinds, shown := map[string]int{}, 0
	const atOnce = 20
	for first := 0; first < n; first += atOnce {
		var listeners, clusters []any
		var states []*config.State
		for seed := first; seed < min(first+atOnce, n); seed++ {
			r := rand.New(rand.NewPCG(uint64(seed), 7))
			data := make([]byte, 3000)
			for i := range data {
				data[i] = byte(r.UintN(256))
			}
			st := config.New()
			st.Apply([]*resource.Object{defaultGateway(t)})
			for _, o := range arbitrary.Objects(data, certs) {
				arbitrary.Accept(st, o)
			}
			for o := range st.All {
				kinds[o.Kind]++
			}
			l, c := alone(t, seed, differing(built(t, st), nil), roots)
			listeners, clusters, states = append(listeners, l...), append(clusters, c...), append(states, st)
		}
		shown += len(listeners) + len(clusters)
		for kind, resources := range map[string][]any{"cds": clusters, "lds": listeners} {
			for seed, said := range e.load(t, kind, resources) {
				t.Errorf("%d: accepted by the checks, refused by Envoy: %s", seed, said)
				for o := range states[seed-first].All {
					t.Logf("%s %s", o.Ref(), o.Spec)
				}
			}
		}
	}
	t.Logf("%d listeners and clusters of %v", shown, kinds)
	for _, k := range resource.Kinds {
		if kinds[k.Name] == 0 {
			t.Errorf("there was no %s in any of them", k.Name)
		}
	}
}

// certificates are those of the translator's golden cases.
func certificates(t testing.TB) []*configv1.Certificate {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "pkg/translate/testdata/in/https.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	k, _ := resource.KindByName(resource.KindCertificate)
	var out []*configv1.Certificate
	for doc := range strings.SplitSeq(string(raw), "---\n") {
		var o struct {
			Kind string
			Spec json.RawMessage
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if o.Kind != k.Name {
			continue
		}
		m, v := resource.DecodeSpec(k, o.Spec)
		if len(v) > 0 {
			t.Fatal(v)
		}
		out = append(out, m.(*configv1.Certificate))
	}
	return out
}
