package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/marchproxy/marchproxy/test/harness"
)

// everyday are the exported types that are no concepts of ours: what every program has.
var everyday = []string{"Config", "Directory", "Handler", "Options"}

// glossary is docs/glossary.md: the types that its code column names, by package and name, and the retired words, each
// with the trees that it is kept out of.
func glossary(t *testing.T) (root string, code map[string]bool, retired map[string][]string) {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "glossary.md"))
	if err != nil {
		t.Fatal(err)
	}
	code, retired = map[string]bool{}, map[string][]string{}
	quoted := regexp.MustCompile("`([^`]+)`")
	section := ""
	for line := range strings.Lines(string(raw)) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(name)
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 3 || strings.HasPrefix(cells[0], "---") {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[2], -1) {
			if section != "Retired words" {
				code[m[1]] = true
				continue
			}
			for word := range strings.FieldsFuncSeq(cells[0], func(r rune) bool { return r == ',' || r == ' ' }) {
				retired[word] = append(retired[word], m[1])
			}
		}
	}
	if len(code) < 15 || len(retired) < 10 {
		t.Fatalf("%d types and %d retired words are read: the glossary's form is another one", len(code), len(retired))
	}
	return root, code, retired
}

// TestGlossary: what the glossary says of the code is there, and each exported type of the packages that it names is in
// it.
func TestGlossary(t *testing.T) {
	root, code, _ := glossary(t)
	packages, declared := map[string]bool{}, map[string]bool{}
	for name := range code {
		of, _, _ := strings.Cut(name, ".")
		packages[of] = true
	}
	complete := []string{"ads", "laststate", "seats"}
	sources(t, root, []string{"pkg", "services"}, func(path string, _ *token.FileSet, f *ast.File) {
		if !packages[f.Name.Name] {
			return
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					declared[f.Name.Name+"."+d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					ts, ok := s.(*ast.TypeSpec)
					if !ok {
						continue
					}
					name := f.Name.Name + "." + ts.Name.Name
					declared[name] = true
					ours := slices.Contains(complete, f.Name.Name) && ts.Name.IsExported() && !slices.Contains(everyday, ts.Name.Name)
					if ours && !code[name] {
						t.Errorf("%s declares %s, which docs/glossary.md does not explain", path, name)
					}
				}
			}
		}
	})
	for name := range code {
		if !declared[name] {
			t.Errorf("docs/glossary.md names %s, which is not there", name)
		}
	}
}

// TestRetiredWords: the words that the glossary has retired are in no identifier and no comment of the trees that are
// free of them.
func TestRetiredWords(t *testing.T) {
	root, _, retired := glossary(t)
	trees := map[string]bool{}
	for _, of := range retired {
		for _, tree := range of {
			trees[tree] = true
		}
	}
	for tree := range trees {
		read := 0
		sources(t, root, []string{tree}, func(path string, fset *token.FileSet, f *ast.File) {
			read++
			check := func(at token.Pos, text string) {
				for _, w := range words(text) {
					if slices.Contains(retired[w], tree) {
						t.Errorf("%s:%d: %q: docs/glossary.md has another word for %q", path, fset.Position(at).Line, text, w)
					}
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					check(id.Pos(), id.Name)
				}
				return true
			})
			for _, group := range f.Comments {
				for _, c := range group.List {
					check(c.Pos(), stateOfTheWorld.ReplaceAllString(c.Text, ""))
				}
			}
		})
		if read == 0 {
			t.Errorf("there is no code in %s", tree)
		}
	}
}

// stateOfTheWorld is xDS' own, whatever else a world may be.
var stateOfTheWorld = regexp.MustCompile(`(?i)state[- ]of[- ]the[- ]world`)

// sources reads the Go files below some directories, tests included, but not what is generated.
func sources(t *testing.T, root string, dirs []string, yield func(path string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err == nil && !ast.IsGenerated(f) {
				yield(strings.TrimPrefix(path, root+"/"), fset, f)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// words are those of an identifier or a sentence, in lower case: retryAt is retry and at.
func words(text string) []string {
	var out []string
	begin := -1
	flush := func(end int) {
		if begin >= 0 {
			out = append(out, strings.ToLower(text[begin:end]))
		}
		begin = -1
	}
	lower := false
	for i, r := range text {
		if !unicode.IsLetter(r) {
			flush(i)
		} else if unicode.IsUpper(r) && lower {
			flush(i)
			begin = i
		} else if begin < 0 {
			begin = i
		}
		lower = unicode.IsLower(r)
	}
	flush(len(text))
	return out
}
