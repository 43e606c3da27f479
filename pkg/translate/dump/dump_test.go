package dump_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/pkg/translate/dump"
)

// parse makes documents of a whole dump, written by hand.
func parse(t *testing.T, whole string) []dump.Document {
	t.Helper()
	docs, err := dump.Read([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

const bare = `--- # Cluster big
body:
  a: 1
  b:
  - name: left
    of: [1, 2]
  - name: right
    of: []
  c: "0"
  d:
    e: {}
--- # Cluster gone
body:
  a: 1
--- # Secret s
needs: [Cluster big]
body:
  text: |
    -----BEGIN-----
    --- # no title

    -----END-----
--- # Secret s (plain)
body:
  text: short
`

// TestEveryField: what a resource has is shown. A field that is new has to be, or golden files say nothing of it.
func TestEveryField(t *testing.T) {
	shown := []string{
		"Key", "Body", "Version", "Clusters", "Secrets", "Policies", "Together", "ByName", "Carrier", "Needs",
		"Variants", "Parts",
		"Leaving", "Without", "Partial", "Objects", "OverLimit", "PerRoute", "Plain", "AfterRoutes", "Located",
	}
	for _, of := range []reflect.Type{reflect.TypeFor[translate.Resource](), reflect.TypeFor[translate.Variants]()} {
		for i := range of.NumField() {
			if name := of.Field(i).Name; !slices.Contains(shown, name) {
				t.Errorf("%s.%s is not shown: see to it in this package, and in TestUpdateEqualsRebuild", of, name)
			}
		}
	}
}

// TestWhole: what is written is read as what it was, texts of many lines among it.
func TestWhole(t *testing.T) {
	docs := parse(t, bare)
	written := dump.Whole(docs)
	again := parse(t, string(written))
	if got, want := asJSON(t, again), asJSON(t, docs); got != want {
		t.Errorf("read anew:\n%s\nwant\n%s", got, want)
	}
	if len(docs) != 4 || docs[3].Variant != "plain" || docs[2].Variant != "" {
		t.Errorf("documents %+v", docs)
	}
	if text := docs[2].Body["text"]; text != "-----BEGIN-----\n--- # no title\n\n-----END-----\n" {
		t.Errorf("text %q", text)
	}
}

// TestDiff: a difference shows what differs and its place, and makes the whole again.
func TestDiff(t *testing.T) {
	for name, c := range map[string]struct{ now, want string }{
		"nothing": {bare, ""},
		"a value in a list's element": {
			strings.Replace(bare, "of: []", "of: [3]", 1),
			"--- # Cluster big\n@@ body.b[left].of[0] @@\n     - 1\n     - 2\n   - name: right\n-    of: []\n+    of:\n+    - " +
				"3\n   c: \"0\"\n   d:\n     e: {}\n",
		},
		"a number in a text's place": {
			strings.Replace(bare, `c: "0"`, "c: 0", 1),
			"--- # Cluster big\n@@ body.b[left].of[1] @@\n     - 2\n   - name: right\n     of: []\n-  c: \"0\"\n+  c: 0\n   " +
				"d:\n     e: {}\n",
		},
		"what it needs": {
			strings.Replace(bare, "needs: [Cluster big]\n", "", 1),
			"--- # Secret s\n@@ needs @@\n-needs:\n-- Cluster big\n body:\n   text: |\n     -----BEGIN-----\n",
		},
		"a line of a text": {
			strings.Replace(bare, "    -----END-----\n", "    -----FINE-----\n", 1),
			"--- # Secret s\n@@ body.text line 1 @@\n     -----BEGIN-----\n     --- # no title\n \n-    -----END-----\n+    " +
				"-----FINE-----\n",
		},
		"one that is gone and one that is new": {
			strings.Replace(bare, "# Cluster gone", "# Cluster new", 1),
			"--- # Cluster gone\n-body:\n-  a: 1\n--- # Cluster new\n+body:\n+  a: 1\n",
		},
		"a new variant, beside what it is one of": {
			bare + "--- # Cluster gone (over limit)\nbody:\n  a: 2\n",
			"--- # Cluster gone (over limit)\n+body:\n+  a: 2\n", // which is shorter than to say what it is like
		},
		"a new variant that is alike": {
			bare + "--- # Cluster gone (over limit)\nbody:\n  a: 1\n",
			"--- # Cluster gone (over limit)\n~ Cluster gone\n",
		},
		"a new one that has little of its own": {
			bare + strings.Replace(strings.Replace(bare[:strings.Index(bare, "--- # Cluster gone")], "big", "other", 1),
				"a: 1", "a: 5", 1),
			"--- # Cluster other\n~ Cluster big\n@@ body @@\n body:\n-  a: 1\n+  a: 5\n   b:\n   - name: left\n     of:\n",
		},
		"a variant that is gone": {
			strings.Replace(bare, "--- # Secret s (plain)\nbody:\n  text: short\n", "", 1),
			"--- # Secret s (plain)\n-body:\n-  text: short\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			before, now := parse(t, bare), parse(t, c.now)
			got := dump.Diff(before, now)
			if string(got) != c.want {
				t.Errorf("it differs by\n%s\nwant\n%s", got, c.want)
			}
			whole, err := dump.Apply(before, got)
			if err != nil {
				t.Fatal(err)
			}
			if left := dump.Diff(whole, now); len(left) > 0 {
				t.Errorf("applied, it still differs by\n%s", left)
			}
		})
	}
}

// TestApplyRefuses: a difference to something else is not applied.
func TestApplyRefuses(t *testing.T) {
	for name, diff := range map[string]string{
		"another line":               "--- # Cluster gone\n@@ body @@\n body:\n-  a: 7\n+  a: 2\n",
		"a place that is not there":  "--- # Cluster gone\n@@ body.x @@\n-  a: 1\n",
		"a hunk of nothing":          "--- # Cluster other\n@@ body @@\n-body:\n",
		"something that is there":    "--- # Cluster gone\n+body:\n+  a: 2\n",
		"more lines than there are":  "--- # Cluster gone\n@@ body @@\n body:\n   a: 1\n   b: 2\n",
		"like what is not there":     "--- # Cluster other\n~ Cluster nowhere\n",
		"a line without a mark":      "--- # Cluster gone\n@@ body @@\n body:\n\n",
		"no resource after the edit": "--- # Cluster gone\n@@ body @@\n-body:\n",
	} {
		t.Run(name, func(t *testing.T) {
			if docs, err := dump.Apply(parse(t, bare), []byte(diff)); err == nil {
				t.Errorf("it is applied:\n%s", dump.Whole(docs))
			}
		})
	}
}

// TestTwice: what is large and there twice is written once, and read twice; what is in it is not counted again.
func TestTwice(t *testing.T) {
	large := map[string]any{"text": strings.Repeat("x", 2000), "below": map[string]any{"text": strings.Repeat("y", 2000)}}
	d := dump.Document{Title: "Listener http", Body: map[string]any{
		"chains": []any{
			map[string]any{"name": "one", "filters": []any{large}},
			map[string]any{"name": "two", "filters": []any{large}},
			map[string]any{"name": "three", "filters": []any{large, large["below"]}},
		},
		"small": map[string]any{"a": []any{1.0}, "b": []any{1.0}},
	}}
	written := dump.Whole([]dump.Document{d})
	for text, want := range map[string]int{"&": 2, "&filters": 1, "*filters": 1, "&below": 1, "*below": 1} {
		if n := bytes.Count(written, []byte(text)); n != want {
			t.Errorf("%s is there %d times, want %d, in\n%s", text, n, want, written)
		}
	}
	again := parse(t, string(written))
	if got, want := asJSON(t, again), asJSON(t, []dump.Document{d}); got != want {
		t.Errorf("read anew it is another:\n%s", got)
	}
}

func asJSON(t *testing.T, docs []dump.Document) string {
	t.Helper()
	var out bytes.Buffer
	for _, d := range docs {
		raw, err := json.Marshal(d.Body)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(d.Title + " " + d.Variant + " " + string(raw) + "\n")
	}
	return out.String()
}
