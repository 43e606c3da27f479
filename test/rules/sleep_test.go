package rules

import (
	"go/ast"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// TestSleeps: a test waits for a condition, until a deadline, and not for a time that is hoped to be enough: that is
// too short on a busy machine and too long on all others. So a sleep of a test stands in a loop that looks at a clock,
// in a file of tests in synctest's bubble, where no time passes, or beside a comment that says why the time is
// the subject.
func TestSleeps(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	sources(t, root, []string{
		"bpf", "pkg", "services", "test",
		"wasm-filters",
	}, func(path string, fset *token.FileSet, f *ast.File) {
		if !strings.HasSuffix(path, "_test.go") || imports(f, "testing/synctest") {
			return
		}
		reasons := map[int]bool{} // lines with a comment, and those below
		for _, group := range f.Comments {
			reasons[fset.Position(group.Pos()).Line] = true
			reasons[fset.Position(group.End()).Line+1] = true
		}
		var loops []*ast.ForStmt
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ForStmt:
				if calls(n, "time", "Now") || calls(n, "time", "Since") {
					loops = append(loops, n)
				}
			case *ast.CallExpr:
				if !isCall(n, "time", "Sleep") {
					break
				}
				found++
				at := fset.Position(n.Pos()).Line
				for _, l := range loops {
					if l.Pos() <= n.Pos() && n.End() <= l.End() {
						return true
					}
				}
				if !reasons[at] {
					t.Errorf("%s:%d: sleeps without a reason: wait for a condition, in a loop with a deadline that says what was "+
						"waited for, or say why time is the subject", path, at)
				}
			}
			return true
		})
	})
	if found < 10 {
		t.Errorf("only %d sleeps are found: this test does not see them", found)
	}
}

func imports(f *ast.File, path string) bool {
	for _, i := range f.Imports {
		if p, err := strconv.Unquote(i.Path.Value); err == nil && p == path {
			return true
		}
	}
	return false
}

func calls(n ast.Node, pkg, name string) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		found = found || ok && isCall(c, pkg, name)
		return !found
	})
	return found
}

func isCall(c *ast.CallExpr, pkg, name string) bool {
	s, ok := c.Fun.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	id, ok := s.X.(*ast.Ident)
	return ok && id.Name == pkg
}
