package translate_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

var update = flag.Bool("update", false, "write the golden files anew")

// resolve knows one name.
func resolve(host string) ([]netip.Addr, bool) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, host == "localhost"
}

func gatewayObject(t testing.TB) *resource.Object {
	t.Helper()
	o, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}, &configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: 10000}}})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// read decodes a file of objects, with every check that the api makes of one.
func read(t testing.TB, path string) []*resource.Object {
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
		k, ok := resource.KindByName(o.Kind)
		if !ok {
			t.Fatalf("kind %q", o.Kind)
		}
		m, v := resource.DecodeSpec(k, o.Spec)
		if len(v) == 0 {
			v = resource.Validate(m)
		}
		if len(v) > 0 {
			t.Fatal(v)
		}
		x, err := resource.New(resource.Ref{Kind: o.Kind, Name: o.Name}, m)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// show writes all resources, without the fields of these names.
func show(t testing.TB, b *translate.Builder, without ...string) []byte {
	t.Helper()
	all := slices.SortedFunc(b.All(), func(x, y *translate.Resource) int {
		return strings.Compare(string(x.Type)+x.Name, string(y.Type)+y.Name)
	})
	var out bytes.Buffer
	for i := 0; i < len(all); i++ { // a resource's other form comes after it
		r := all[i]
		if r.OverLimit != nil {
			all = slices.Insert(all, i+1, r.OverLimit)
		}
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		var body any
		if err := json.Unmarshal(raw, &body); err != nil {
			t.Fatal(err)
		}
		drop(body, without)
		y, err := yaml.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		out.Write(y)
	}
	return out.Bytes()
}

func drop(v any, names []string) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range names {
			delete(v, name)
		}
		for _, below := range v {
			drop(below, names)
		}
	case []any:
		for _, below := range v {
			drop(below, names)
		}
	}
}

// refusals is the case that shows how Envoy's own refusals are written anew, the same in every listener.
const refusals = "auth-public-keys.yaml"

// TestGolden: one case a feature. That Envoy takes what is built is shown by test/e2e, which applies the
// same files to a running system.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/in/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".yaml"), func(t *testing.T) {
			st := config.New()
			st.Apply([]*resource.Object{gatewayObject(t)})
			changes, _ := st.Apply(read(t, f))
			for _, p := range append(st.Check(changes), translate.Check(st, changes)...) {
				t.Errorf("refused: %s %s", p.Object, p.Message)
			}
			b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: resolve})
			if _, problems := b.Rebuild(st); len(problems) > 0 {
				t.Fatal(problems)
			}
			var without []string
			if filepath.Base(f) != refusals {
				without = []string{"local_reply_config"}
			}
			got := show(t, b, without...)
			golden := filepath.Join("testdata", "out", filepath.Base(f))
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; look at it with: go test ./pkg/translate -update && git diff", golden)
			}
		})
	}
}

// TestUpdateEqualsRebuild: the files applied one after the other, and taken away again, leave a builder
// with what one built from nothing has.
func TestUpdateEqualsRebuild(t *testing.T) {
	files, err := filepath.Glob("testdata/in/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	st := config.New()
	changes, _ := st.Apply([]*resource.Object{gatewayObject(t)})
	b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: resolve})
	b.Update(st, changes, translate.Policies{})
	same := func(after string) {
		t.Helper()
		fresh := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: resolve})
		fresh.Rebuild(st)
		if got, want := show(t, b), show(t, fresh); !bytes.Equal(got, want) {
			t.Fatalf("after %s updates and a rebuild differ:\n%s\nwant\n%s", after, got, want)
		}
	}
	for _, f := range files {
		changes, _ = st.Apply(read(t, f))
		b.Update(st, changes, translate.Policies{})
		same(f)
	}
	for _, f := range files {
		var gone []*resource.Object
		for _, o := range read(t, f) {
			if o.Kind == resource.KindRoute {
				gone = append(gone, resource.Tombstone(o.Ref(), 1))
			}
		}
		changes, _ = st.Apply(gone)
		b.Update(st, changes, translate.Policies{})
		same("removing " + f)
	}
}
