package translate_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aymanbagabas/go-udiff"
	"sigs.k8s.io/yaml"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/pkg/translate/dump"
)

var update = flag.Bool("update", false, "write the golden files anew")

// resolve knows one name.
func resolve(host string) ([]netip.Addr, bool) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, host == "localhost"
}

func gatewayObject(t testing.TB) *resource.Object {
	t.Helper()
	o, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway},
		&configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: 10000}}})
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

// show has all resources of a builder, with their variants and with what they need.
func show(t testing.TB, b *translate.Builder) []dump.Document {
	t.Helper()
	docs, err := dump.Resources(slices.Collect(b.All()))
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

// bare is a gateway without routes, whole; what a case changes in that is what its own golden file has.
const bare = "testdata/out/bare.yaml"

// TestGolden: one case a feature. All that is built is compared: [dump.Diff] loses nothing, and bare is compared whole.
// That Envoy takes it is shown by test/golden, and by test/e2e, which applies the same files to a running system.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/in/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	build := func(t *testing.T, objects []*resource.Object) []dump.Document {
		st := config.New()
		st.Apply([]*resource.Object{gatewayObject(t)})
		changes, _ := st.Apply(objects)
		for _, p := range append(st.Check(changes), translate.Check(st, changes)...) {
			t.Errorf("refused: %s %s", p.Object, p.Message)
		}
		b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: resolve})
		if _, problems := b.Rebuild(st); len(problems) > 0 {
			t.Fatal(problems)
		}
		return show(t, b)
	}
	without := build(t, nil)
	t.Run("bare", func(t *testing.T) { compare(t, bare, dump.Whole(without)) })
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			compare(t, "testdata/out/"+name+".diff", dump.Diff(without, build(t, read(t, f))))
		})
	}
}

// compare holds a golden file against what it should have, or writes it.
func compare(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs. If it should, write it with: go test ./pkg/translate -run Golden -update\n%s", path,
			udiff.Unified("written", "built", string(want), string(got)))
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
		if maps.EqualFunc(byKey(fresh), byKey(b), alike) {
			return
		}
		if differ := dump.Diff(show(t, fresh), show(t, b)); len(differ) > 0 {
			t.Fatalf("after %s what updates have made differs from a rebuild:\n%s", after, differ)
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

func byKey(b *translate.Builder) map[translate.Key]*translate.Resource {
	out := map[translate.Key]*translate.Resource{}
	for r := range b.All() {
		out[r.Key] = r
	}
	return out
}

// alike says that two resources and their variants are the same without a look at their bodies, whose digest the
// version is.
func alike(x, y *translate.Resource) bool {
	if x == nil || y == nil {
		return x == y
	}
	for part := range x.Parts {
		// What is left has parts in its turn: a look at their parts, and at those', would not end.
		closed := map[string]bool{part: true}
		if y.Without == nil || x.Without(closed).Version != y.Without(closed).Version {
			return false
		}
	}
	for _, p := range x.Places() {
		if x.At(p).Version != y.At(p).Version {
			return false
		}
	}
	return x.Key == y.Key && x.Version == y.Version && slices.Equal(x.Clusters, y.Clusters) &&
		slices.Equal(x.Places(), y.Places()) &&
		slices.Equal(x.Secrets, y.Secrets) &&
		slices.Equal(x.Policies, y.Policies) && slices.EqualFunc(x.Together, y.Together, slices.Equal) &&
		x.ByName == y.ByName &&
		x.Carrier == y.Carrier && slices.Equal(x.Needs, y.Needs) && maps.Equal(x.Parts, y.Parts) &&
		maps.Equal(x.Leaving, y.Leaving) &&
		x.Partial == y.Partial && slices.Equal(x.Objects, y.Objects) && x.AfterRoutes == y.AfterRoutes &&
		alike(x.OverLimit, y.OverLimit) && alike(x.PerRoute, y.PerRoute) && alike(x.Plain, y.Plain)
}
