// Package events holds docs/events.md, docs/asyncapi.yaml and the consumers in docs/examples against a running
// system.
package events

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/test/harness"
)

var update = flag.Bool("update", false, "write the made parts of docs/events.md anew")

func root(t *testing.T) string {
	t.Helper()
	dir, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

const (
	goConsumer     = "docs/examples/consumer-go/main.go"
	pythonConsumer = "docs/examples/consumer-python/consumer.py"
)

// TestDocument: what docs/events.md shows is what the programs, the permissions and the hash are. With -update
// it is made so.
func TestDocument(t *testing.T) {
	doc := read(t, "docs/events.md")
	want := doc
	for marker, content := range map[string]string{
		goConsumer:     "```go\n" + read(t, goConsumer) + "```\n",
		pythonConsumer: "```python\n" + read(t, pythonConsumer) + "```\n",
		"permissions":  "```\n" + permissionsText("NAME") + "```\n",
		"example":      example(t),
	} {
		begin, end := "<!-- "+marker+" -->\n", "<!-- /"+marker+" -->\n"
		before, rest, ok := strings.Cut(want, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("docs/events.md has no place for %s", marker)
		}
		want = before + begin + content + end + after
	}
	if want == doc {
		return
	}
	if !*update {
		t.Fatal("docs/events.md is not what it shows; go test ./test/events -run TestDocument -update")
	}
	if err := os.WriteFile(filepath.Join(root(t), "docs/events.md"), []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPinned: the documented commands install what the examples are tested with.
func TestPinned(t *testing.T) {
	doc := read(t, "docs/events.md")
	list := strings.TrimSpace(read(t, "docs/examples/consumer-python/requirements.txt"))
	if !strings.Contains(doc, "pip install "+list) {
		t.Errorf("docs/events.md does not install %s", list)
	}
	for line := range strings.Lines(read(t, "docs/examples/consumer-go/go.mod")) {
		if lib, ok := strings.CutPrefix(line, "require "); ok {
			if want := strings.Replace(strings.TrimSpace(lib), " ", "@", 1); !strings.Contains(doc, want) {
				t.Errorf("docs/events.md does not get %s", want)
			}
		}
	}
}

// example is a hash worked out by hand for a reader to check his own code with.
func example(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	var sum resource.Hash
	b.WriteString("For example, two routes:\n\n")
	for i, name := range []string{"first", "second"} {
		o, err := resource.ParsePayload(fmt.Appendf(nil, `{"kind":"Route","name":%q,"revision":%d,`+
			`"spec":{"hosts":["%s.example.com"],"direct_response":{"status":200}}}`, name, i+1, name))
		if err != nil {
			t.Fatal(err)
		}
		one := resource.Sum(o)
		sum = sum.Add(one)
		fmt.Fprintf(&b, "    payload   %s\n    SHA-256   %s\n", o.Payload(), one)
	}
	raw, err := json.Marshal(resource.KindState{Count: 2, Hash: sum.String()})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "\nhave the state `\"Route\": %s`.\n", raw)
	return b.String()
}
