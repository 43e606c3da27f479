package golden

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/pkg/translate/arbitrary"
	"github.com/marchproxy/marchproxy/test/harness"
)

// configurations is how many random ones Envoy is shown; MARCHPROXY_CONFIGURATIONS asks for more.
const configurations = 24

// TestRandomConfigurations: what the checks accept, Envoy accepts. A failure prints the objects; what made
// Envoy refuse them belongs into translate.Check, and here as a case of its own.
func TestRandomConfigurations(t *testing.T) {
	n := configurations
	if v := os.Getenv("MARCHPROXY_CONFIGURATIONS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	certs, roots := certificates(t), authority(t)
	for seed := range uint64(n) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 7))
			data := make([]byte, 3000)
			for i := range data {
				data[i] = byte(r.UintN(256))
			}
			st := config.New()
			for _, o := range arbitrary.Objects(data, certs) {
				arbitrary.Accept(st, o)
			}
			b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: func(string) ([]netip.Addr, bool) {
				return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, true
			}})
			b.Rebuild(st)
			var built []object
			for x := range b.All() {
				raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(x.Body)
				if err != nil {
					t.Fatal(err)
				}
				var o object
				if err := json.Unmarshal(raw, &o); err != nil {
					t.Fatal(err)
				}
				built = append(built, o)
			}
			if said, ok := validate(t, encode(t, assemble(t, built, roots))); !ok {
				t.Errorf("accepted by the checks, refused by Envoy:\n%s", said)
				for o := range st.All {
					t.Logf("%s %s", o.Ref(), o.Spec)
				}
			}
		})
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
