package rules

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

var (
	setting = regexp.MustCompile(`\be\.(?:String|Secret|Required|Bool|Int|Duration|Addr)\("([A-Z0-9_]+)"`)
	link    = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	place   = regexp.MustCompile("`((?:proto|pkg|services|bpf|wasm-filters|test)(?:/[a-z0-9-]+)*)`")
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

// TestLinks: what a document links to is there.
func TestLinks(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, filepath.Join(root, "README.md")) {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(raw), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(f), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", f, m[1])
			}
		}
	}
}

// TestArchitecture: docs/architecture.md names every package and every crate, and none that is not there.
func TestArchitecture(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)
	for _, p := range packages(t) {
		if path := strings.TrimPrefix(p.ImportPath, module); !strings.Contains(path, "testdata") && !strings.Contains(page, "`"+path+"`") {
			t.Errorf("docs/architecture.md has no word of %s: say in a sentence what it is for", path)
		}
	}
	crates, err := filepath.Glob(filepath.Join(root, "wasm-filters", "*", "Cargo.toml"))
	if err != nil || len(crates) == 0 {
		t.Fatalf("there are no crates (%v)", err)
	}
	for _, c := range crates {
		if path := "wasm-filters/" + filepath.Base(filepath.Dir(c)); !strings.Contains(page, "`"+path+"`") {
			t.Errorf("docs/architecture.md has no word of %s: say in a sentence what it is for", path)
		}
	}
	for _, m := range place.FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			t.Errorf("docs/architecture.md names %s, which is not there", m[1])
		}
	}
}
