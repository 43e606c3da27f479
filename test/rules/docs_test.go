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
