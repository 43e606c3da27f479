package rules

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

var (
	setting = regexp.MustCompile(`\be\.(?:String|Secret|Required|Bool|Int|Duration|Addr)\("([A-Z0-9_]+)"`)
	link    = regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)]*))?\)`)
	// place is a file or directory that a document names; what has capitals in it stands for others.
	place    = regexp.MustCompile("`((?:proto|pkg|services|bpf|wasm-filters|test|docs|scripts)/[a-z0-9_./-]+)`")
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// TestSettings: every setting that a service reads is in the operator's manual.
func TestSettings(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	look := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range setting.FindAllStringSubmatch(string(raw), -1) {
			found++
			if !strings.Contains(string(manual), "`"+m[1]+"`") {
				t.Errorf("%s reads %s, which docs/operations.md does not tell of", path, m[1])
			}
		}
		return nil
	}
	for _, module := range []string{"services", "pkg"} {
		if err := filepath.WalkDir(filepath.Join(root, module), look); err != nil {
			t.Fatal(err)
		}
	}
	if found < 15 {
		t.Errorf("only %d settings are found: the pattern of this test is out of date", found)
	}
}

// TestLinks: what a document links to is there, headings too, and so are the files that it names.
func TestLinks(t *testing.T) {
	root, pages := documents(t)
	anchors := func(page string) (out []string) {
		for _, h := range heading.FindAllStringSubmatch(pages[page], -1) {
			out = append(out, strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
		}
		return out
	}
	for page, text := range pages {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := page
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, to)
			} else if m[2] != "" && !slices.Contains(anchors(to), m[2]) {
				t.Errorf("%s links to the heading %s of %s, which is not there", page, m[2], to)
			}
		}
		for _, m := range place.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
	}
}

// TestEveryDocumentIsFound: the README leads to each document for users.
func TestEveryDocumentIsFound(t *testing.T) {
	_, pages := documents(t)
	for page := range pages {
		if filepath.Dir(page) == "docs" && !strings.Contains(pages["README.md"], "]("+page+")") {
			t.Errorf("the README does not list %s", page)
		}
	}
}

// TestArchitecture: docs/architecture.md names every package and every crate. (That what it names is there is
// TestLinks'.)
func TestArchitecture(t *testing.T) {
	root, pages := documents(t)
	var all []string
	for _, p := range packages(t) {
		if path := strings.TrimPrefix(p.ImportPath, module); !strings.Contains(path, "testdata") {
			all = append(all, path)
		}
	}
	crates, err := filepath.Glob(filepath.Join(root, "wasm-filters", "*", "Cargo.toml"))
	if err != nil || len(crates) == 0 {
		t.Fatalf("there are no crates (%v)", err)
	}
	for _, c := range crates {
		all = append(all, "wasm-filters/"+filepath.Base(filepath.Dir(c)))
	}
	for _, path := range all {
		if !strings.Contains(pages["docs/architecture.md"], "`"+path+"`") {
			t.Errorf("docs/architecture.md has no word of %s: say in a sentence what it is for", path)
		}
	}
}
