package ads

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layers are the files of each layer, by the beginnings of their names, the lowest layer first, with what it may not
// import. All other files are the transport.
var layers = []struct {
	files []string
	not   []string
}{
	{[]string{"table", "ids"}, []string{"context", "sync", "net", "os", "google.golang.org/grpc"}},
	{[]string{"plan", "rules"}, []string{"context", "sync", "net", "os", "google.golang.org/grpc", "go.uber.org/zap"}},
}

// TestLayers: a table compiles without the plans, and a plan without the transport. Neither has locks or does I/O. What
// differs between resource types is said in rules.go: nobody else compares a type.
func TestLayers(t *testing.T) {
	fset := token.NewFileSet()
	var files []*ast.File // of this layer and those below
	declared := map[string]int{}
	var methods []method
	for i, layer := range layers {
		var names []string
		for _, prefix := range layer.files {
			for _, pattern := range []string{prefix + ".go", prefix + "_*.go"} {
				found, err := filepath.Glob(pattern)
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, found...)
			}
		}
		if len(names) < 4 {
			t.Fatalf("only %q are of the layer %q", names, layer.files)
		}
		for _, name := range names {
			f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.GenDecl:
					for _, spec := range d.Specs {
						if s, ok := spec.(*ast.TypeSpec); ok {
							declared[s.Name.Name] = i
						}
					}
				case *ast.FuncDecl:
					if of := receiver(d); of != "" {
						methods = append(methods, method{of, i, fset.Position(d.Pos())})
					}
				}
			}
			for _, imp := range f.Imports {
				path, err := strconv.Unquote(imp.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if slices.ContainsFunc(layer.not, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") }) {
					t.Errorf("%s imports %s", name, path)
				}
			}
			if name != "rules.go" {
				comparesTypes(t, fset, f)
			}
		}
		undeclared(t, fset, files)
	}
	for _, m := range methods {
		if declared[m.of] != m.layer {
			t.Errorf("%s: a method of %s, which another layer declares", m.at, m.of)
		}
	}
}

type method struct {
	of    string
	layer int
	at    token.Position
}

// receiver is the type that a function is a method of; "" where it is none.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	x := f.Recv.List[0].Type
	if p, ok := x.(*ast.StarExpr); ok {
		x = p.X
	}
	if id, ok := x.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// undeclared fails for each name that some files use and another file declares.
func undeclared(t *testing.T, fset *token.FileSet, files []*ast.File) {
	t.Helper()
	conf := types.Config{
		Importer: nowhere{}, // what is imported is of no interest, and not looked at
		Error: func(err error) {
			var e types.Error
			if errors.As(err, &e) && strings.HasPrefix(e.Msg, "undefined: ") {
				t.Errorf("%s: %s, as far as its layer and those below know", fset.Position(e.Pos), e.Msg)
			}
		},
	}
	_, _ = conf.Check("ads", fset, files, nil) // Error has been told
}

var errNowhere = errors.New("imports are not looked at")

type nowhere struct{}

// Import implements [types.Importer].
func (nowhere) Import(string) (*types.Package, error) { return nil, errNowhere }

// comparesTypes fails for each comparison with a resource type.
func comparesTypes(t *testing.T, fset *token.FileSet, f *ast.File) {
	t.Helper()
	check := func(all ...ast.Expr) {
		for _, x := range all {
			if s, ok := x.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Type") {
				if p, ok := s.X.(*ast.Ident); ok && p.Name == "translate" {
					t.Errorf("%s: what differs between resource types is said in rules.go", fset.Position(s.Pos()))
				}
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			check(n.X, n.Y)
		case *ast.CaseClause:
			check(n.List...)
		}
		return true
	})
}
