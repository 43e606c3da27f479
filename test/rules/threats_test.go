package rules

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// proof is a test as the threat model names it: `TestX`, `TestX/part`, and after such a one, in the same clause,
// `/part` for another part of the same test. It is one of test/security where that has it; of `DIR` behind it says
// which package's it is where several others have it.
var proof = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)?(?:/([^`/]+))?`(?: of `([^`]+)`)?")

type named struct{ test, part, dir string }

// proofs are the tests that a text names.
func proofs(text string) (out []named) {
	end := -1 // of the one before
	for _, m := range proof.FindAllStringSubmatchIndex(text, -1) {
		group := func(i int) string {
			if m[2*i] < 0 {
				return ""
			}
			return text[m[2*i]:m[2*i+1]]
		}
		p := named{group(1), group(2), group(3)}
		if p.test == "" {
			if end < 0 || strings.ContainsAny(text[end:m[0]], ".;|") || p.part == "" {
				continue // something else in backticks
			}
			p.test, p.dir = out[len(out)-1].test, out[len(out)-1].dir
		}
		out, end = append(out, p), m[1]
	}
	return out
}

// assertions are the lines of the threat model that need a test: what is in the way of each attacker, and every point
// of the lists.
func assertions(t *testing.T, doc string) (out []string) {
	t.Helper()
	_, doc, found := strings.Cut(doc, "\n## Who attacks")
	if !found {
		t.Fatal("the threat model has no part \"Who attacks\"")
	}
	point := ""
	end := func() {
		if point != "" {
			out = append(out, point)
		}
		point = ""
	}
	for line := range strings.Lines(doc) {
		switch line = strings.TrimRight(line, "\n"); {
		case strings.HasPrefix(line, "| attacker"), strings.HasPrefix(line, "|---"):
		case strings.HasPrefix(line, "|"):
			cells := strings.Split(strings.Trim(line, "|"), "|")
			if len(cells) != 3 {
				t.Errorf("a row of %d cells: %s", len(cells), line)
				continue
			}
			if strings.TrimSpace(cells[1]) == "" {
				t.Errorf("nothing is in the way of%s", cells[0])
			}
			out = append(out, line)
		case strings.HasPrefix(line, "- "):
			end()
			point = line
		case point != "" && strings.HasPrefix(line, "  "):
			point += " " + strings.TrimSpace(line)
		default:
			end()
		}
	}
	end()
	return out
}

// tests are the test functions by name and directory, each with the parts that it runs under a name that is written
// there.
func tests(t *testing.T, root string) map[string]map[string][]string {
	t.Helper()
	out := map[string]map[string][]string{}
	sources(t, root, []string{"bpf", "pkg", "services", "test"}, func(path string, _ *token.FileSet, file *ast.File) {
		// What is in testdata is run by no go test.
		if !strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/testdata/") {
			return
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") && !strings.HasPrefix(f.Name.Name, "Fuzz") {
				continue
			}
			if out[f.Name.Name] == nil {
				out[f.Name.Name] = map[string][]string{}
			}
			out[f.Name.Name][dir] = parts(f)
		}
	})
	return out
}

func parts(f *ast.FuncDecl) (out []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		if run, ok := call.Fun.(*ast.SelectorExpr); !ok || run.Sel.Name != "Run" {
			return true
		}
		if name, ok := call.Args[0].(*ast.BasicLit); ok {
			if text, err := strconv.Unquote(name.Value); err == nil {
				out = append(out, strings.ReplaceAll(text, " ", "_")) // as go test writes it
			}
		}
		return true
	})
	return out
}

// TestThreatModel: every line of the threat model names a test that shows it, and the tests that it names are there.
func TestThreatModel(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := assertions(t, string(raw))
	if len(lines) < 25 {
		t.Errorf("only %d lines are found: the pattern of this test is out of date", len(lines))
	}
	have := tests(t, root)
	for _, line := range lines {
		start := line[:min(len(line), 60)]
		all := proofs(line)
		if len(all) == 0 {
			t.Errorf("no test is named for %q", start)
		}
		for _, p := range all {
			dirs := have[p.test]
			if _, ours := dirs["test/security"]; ours && p.dir == "" {
				p.dir = "test/security"
			}
			in, there := dirs[p.dir]
			switch {
			case len(dirs) == 0:
				t.Errorf("%q: there is no test %s", start, p.test)
				continue
			case p.dir != "" && !there:
				t.Errorf("%q: %s has no test %s", start, p.dir, p.test)
				continue
			case p.dir == "" && len(dirs) > 1:
				t.Errorf("%q: several packages have a test %s; say \"of `DIR`\"", start, p.test)
				continue
			case p.dir == "":
				for _, in = range dirs { // the only one
				}
			}
			if p.part != "" && !slices.Contains(in, p.part) {
				t.Errorf("%q: %s runs no part %q, but %q", start, p.test, p.part, in)
			}
		}
	}
}
