package golden

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/translate/dump"
)

// bareGateway reads the golden output that the others are differences to.
func bareGateway(t *testing.T, dir string) []dump.Document {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "bare.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	docs, err := dump.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

// output is a case's whole output, put together of what differs from the bare gateway's.
func output(t *testing.T, name string, bare []dump.Document, diff []byte) []dump.Document {
	t.Helper()
	docs, err := dump.Apply(bare, diff)
	if err != nil {
		t.Fatalf("%s.diff is no difference to bare.yaml: %v", name, err)
	}
	return docs
}

// envoyTakes shows Envoy a case, and once more for each variant that seen has not, in the resource's place.
func envoyTakes(t *testing.T, name string, docs, seen []dump.Document, roots string) {
	t.Helper()
	known := map[string]bool{}
	for _, d := range seen {
		known[d.Title+string(encode(t, d.Body))] = true
	}
	shown := map[string]bool{"": true}
	for _, d := range docs {
		shown[d.Variant] = shown[d.Variant] || !known[d.Title+string(encode(t, d.Body))]
	}
	for variant, show := range shown {
		if !show {
			continue
		}
		of := map[string]object{} // by the title of the resource itself
		for _, d := range docs {
			if main := strings.TrimSuffix(d.Title, " ("+d.Variant+")"); d.Variant == "" || d.Variant == variant {
				of[main] = d.Body
			}
		}
		var resources []object
		for _, title := range slices.Sorted(maps.Keys(of)) {
			resources = append(resources, deepCopy(of[title]).(object))
		}
		t.Run(strings.TrimSuffix(name+"/"+variant, "/"), func(t *testing.T) {
			t.Parallel()
			b := assemble(t, resources, roots)
			if said, ok := validate(t, encode(t, b)); !ok {
				t.Errorf("Envoy refuses it:\n%s", said)
			}
		})
	}
}
