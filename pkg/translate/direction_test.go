package translate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestDirection: what makes resources of a state knows nothing of who decides what to make again. The builder is in the
// files that begin with its name, and in the table of what a change of each kind has made again; these call the others,
// and no other file speaks of it.
func TestDirection(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	builders, others := 0, 0
	for _, name := range files {
		switch {
		case strings.HasSuffix(name, "_test.go"):
			continue
		case strings.HasPrefix(name, "builder"), name == "kinds.go":
			builders++
			continue
		}
		others++
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		var look func(n ast.Node) bool
		look = func(n ast.Node) bool {
			if kv, is := n.(*ast.KeyValueExpr); is { // a kind's declaration says what the builder makes again
				if key, is := kv.Key.(*ast.Ident); is && key.Name == "changed" {
					return false
				}
			}
			if other, is := n.(*ast.SelectorExpr); is { // another package's Builder is none of ours
				ast.Inspect(other.X, look)
				return false
			}
			if id, is := n.(*ast.Ident); is && (id.Name == "Builder" || id.Name == "NewBuilder" || id.Name == "work") {
				t.Errorf("%s speaks of %s; make it a function of a view, or of what it needs, that the builder calls",
					name, id.Name)
			}
			return true
		}
		ast.Inspect(f, look)
	}
	if builders < 2 || others < 10 {
		t.Fatalf("%d files of the builder and %d others were found", builders, others)
	}
}
