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
// with whether it is retired as an identifier only.
func glossary(t *testing.T) (root string, code, retired map[string]bool) {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "glossary.md"))
	if err != nil {
		t.Fatal(err)
	}
	code, retired = map[string]bool{}, map[string]bool{}
	quoted := regexp.MustCompile("`([^`]+)`")
	text, words, _ := strings.Cut(string(raw), "\n## Retired words\n")
	for line := range strings.Lines(text) {
		if cells := row(line); len(cells) == 3 {
			for _, m := range quoted.FindAllStringSubmatch(cells[2], -1) {
				code[m[1]] = true
			}
		}
	}
	for line := range strings.Lines(words) {
		cells := row(line)
		if len(cells) != 2 || cells[0] == " word " {
			continue
		}
		list, identifiers := strings.CutSuffix(strings.TrimSpace(cells[0]), " (as an identifier)")
		for word := range strings.SplitSeq(list, ", ") {
			retired[word] = identifiers
		}
	}
	if len(code) < 15 || len(retired) < 15 {
		t.Fatalf("%d types and %d retired words are read: the glossary's form is another one", len(code), len(retired))
	}
	return root, code, retired
}

// row are the cells of a line of a table; none of another line.
func row(line string) []string {
	line, ok := strings.CutPrefix(strings.TrimSpace(line), "|")
	if !ok || strings.HasPrefix(line, "---") {
		return nil
	}
	return strings.Split(strings.TrimSuffix(line, "|"), "|")
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

// stays are the places where a retired word is the field's for something else, or that of an interface which others
// have programs for. A place is a file, or a directory with all below it.
var stays = []struct{ words, in, why string }{
	{"verdict verdicts", "bpf services/agent docs/benchmarks.md", "what XDP does with a packet, the kernel's word"},
	{"slot", "bpf/c", "an index of a BPF map; the committed object quotes these lines"},
	{"slot slots", "wasm-filters/mem", "a place in a hash table"},
	{"surplus", "pkg/api services/api proto docs/cli.md", "a field and a filter's value of the API"},
	{"surplus", "wasm-filters/license", "a field of the filter's configuration"},
	{
		"claim claims claimed", "pkg/config/authpolicy.go pkg/translate wasm-filters services/api/internal/web services/api/internal/provider test",
		"JWT claims",
	},
	{"held", "services/agent services/xds wasm-filters", "of a lock"},
}

func stay(path, word string) bool {
	for _, s := range stays {
		if !slices.Contains(strings.Fields(s.words), word) {
			continue
		}
		for place := range strings.FieldsSeq(s.in) {
			if path == place || strings.HasPrefix(path, place+"/") {
				return true
			}
		}
	}
	return false
}

// Not ours: what a language's text quotes, and xDS' own "state of the world".
var (
	literal         = regexp.MustCompile(`"(?:[^"\\\n]|\\.)*"`)
	quotedCode      = regexp.MustCompile("(?s)```.*?```|`[^`]*`")
	stateOfTheWorld = regexp.MustCompile(`(?i)state[- ]?of[- ]?the[- ]?world`)
)

// TestRetiredWords: the words that the glossary has retired are in no identifier and no comment of what is written by
// hand, and in no document. Text that programs or people are sent may have them: it is quoted, or an interface.
func TestRetiredWords(t *testing.T) {
	root, _, retired := glossary(t)
	trees := []string{"bpf", "pkg", "proto", "services", "test", "wasm-filters"}
	complain := func(path string, line int, text string, identifier bool) {
		for _, w := range words(stateOfTheWorld.ReplaceAllString(text, "")) {
			if only, is := retired[w]; is && (identifier || !only) && !stay(path, w) {
				t.Errorf("%s:%d: %q: docs/glossary.md has another word for %q", path, line, strings.TrimSpace(text), w)
			}
		}
	}
	sources(t, root, trees, func(path string, fset *token.FileSet, f *ast.File) {
		seen := map[string]bool{}
		ast.Inspect(f, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && !seen[id.Name] {
				seen[id.Name] = true
				complain(path, fset.Position(id.Pos()).Line, id.Name, true)
			}
			return true
		})
		for _, group := range f.Comments {
			for _, c := range group.List {
				complain(path, fset.Position(c.Pos()).Line, c.Text, false)
			}
		}
	})
	for what, outside := range map[string]*regexp.Regexp{
		"rs": literal, "c": literal, "h": literal, "proto": literal,
		"sql": literal, "md": quotedCode,
	} {
		read := 0
		texts(t, root, append(trees, "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"), "."+
			what, func(path, text string) {
			if read++; path == "docs/glossary.md" {
				return
			}
			// Lines are counted, so what is taken out leaves its ends.
			text = outside.ReplaceAllStringFunc(text,
				func(s string) string { return strings.Repeat("\n", strings.Count(s, "\n")) })
			line := 0
			for l := range strings.Lines(text) {
				line++
				complain(path, line, l, what != "md" && what != "proto")
			}
		})
		if read == 0 {
			t.Errorf("no file ends with .%s: this test looks at nothing", what)
		}
	}
}

// texts reads the files of one extension below some directories, or these files, but not what is built.
func texts(t *testing.T, root string, in []string, ext string, yield func(path, text string)) {
	t.Helper()
	for _, dir := range in {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && (d.Name() == "target" || d.Name() == "node_modules") {
				return fs.SkipDir
			}
			if err != nil || d.IsDir() || filepath.Ext(path) != ext {
				return err
			}
			raw, err := os.ReadFile(path)
			if err == nil {
				yield(strings.TrimPrefix(path, root+"/"), string(raw))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

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
