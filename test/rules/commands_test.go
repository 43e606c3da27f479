package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

var (
	code = regexp.MustCompile("`([^`\n]+)`|(?m:^    (.*)$)")
	// makeTarget is where a command begins: a sentence of a help text may have the word make, too.
	makeTarget = regexp.MustCompile(`(?:^|&& |; )make ([a-z][a-z0-9-]*)`)
	script     = regexp.MustCompile(`(?:^|\s)(scripts/[a-z-]+)`)
	goTest     = regexp.MustCompile(`(?:cd (\S+) && )?go test (.*)`)
	goTestName = regexp.MustCompile(`-(?:run|bench|fuzz) (?:'([^']+)'|(\S+))`)
	testFunc   = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)
	measured   = regexp.MustCompile(`^(\d{1,2} [A-Z][a-z]{2} \d{4}), \S`)
)

// documents are the pages that people read: path by path, what stands in them.
func documents(t *testing.T) (root string, pages map[string]string) {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	pages = map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "wasm-filters/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			pages[rel] = string(raw)
		}
	}
	return root, pages
}

// commands says what is wrong with the commands of a page: a make target, a script or a test that is not there. It
// returns how many it has looked at.
func commands(t *testing.T, root, page, text string) (looked int) {
	t.Helper()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range code.FindAllStringSubmatch(text, -1) {
		command := strings.ReplaceAll(m[1]+m[2], `\|`, "|") // as it is escaped in a table
		for _, target := range makeTarget.FindAllStringSubmatch(command, -1) {
			looked++
			if !strings.Contains(string(makefile), "\n"+target[1]+":") {
				t.Errorf("%s: %q: the Makefile has no target %s", page, command, target[1])
			}
		}
		for _, s := range script.FindAllStringSubmatch(command, -1) {
			looked++
			if _, err := os.Stat(filepath.Join(root, s[1])); err != nil {
				t.Errorf("%s: %q: %v", page, command, err)
			}
		}
		test := goTest.FindStringSubmatch(command)
		if test == nil {
			continue
		}
		dir := filepath.Join(root, test[1])
		for arg := range strings.FieldsSeq(test[2]) {
			if strings.HasPrefix(arg, "./") && !strings.Contains(arg, "...") {
				dir = filepath.Join(dir, arg)
			}
		}
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range testFunc.FindAllStringSubmatch(string(raw), -1) {
				names = append(names, n[1])
			}
		}
		for _, n := range goTestName.FindAllStringSubmatch(test[2], -1) {
			for name := range strings.SplitSeq(n[1]+n[2], "|") {
				name, _, _ = strings.Cut(name, "/")
				if name == "xxx" || name == "^$" { // no test, so that the benchmarks alone run
					continue
				}
				looked++
				pattern, err := regexp.Compile(name)
				if err != nil || !slices.ContainsFunc(names, pattern.MatchString) {
					t.Errorf("%s: %q: there is no test %s in %s", page, command, name, dir)
				}
			}
		}
	}
	return looked
}

// TestCommands: what a document tells its reader to run is there: targets of make, scripts, tests.
func TestCommands(t *testing.T) {
	root, pages := documents(t)
	looked := 0
	for page, text := range pages {
		looked += commands(t, root, page, text)
	}
	if looked < 100 {
		t.Errorf("only %d commands are found: the patterns of this test are out of date", looked)
	}
}

// TestBenchmarks: docs/benchmarks.md begins with one table of what is promised. Each row has a promise, a command that
// is there, a bar, a figure, a result, and the date with the state of the machine; and nothing is said twice.
func TestBenchmarks(t *testing.T) {
	root, pages := documents(t)
	page := "docs/benchmarks.md"
	before, table, found := strings.Cut(pages[page], "|---|---|---|---|---|---|\n")
	if !found || strings.Contains(before, "\n## ") {
		t.Fatalf("%s does not begin with a table of six columns", page)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	seen := map[string]bool{}
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 6 {
			t.Errorf("%d columns, and a row has promise, command, bar, figure, result, date: %s", len(cells), line)
			continue
		}
		if commands(t, root, page, cells[1]) == 0 {
			t.Errorf("%q has no command of this repository: make, scripts/ or go test -run", cells[0])
		}
		if r := cells[4]; r != "met" && r != "**missed**" && r != "**not run**" {
			t.Errorf("%q: the result is met, **missed** or **not run**, and not %q", cells[0], r)
		}
		when := measured.FindStringSubmatch(cells[5])
		if when == nil {
			t.Errorf("%q: %q is no date with the state of the machine, such as: 26 Nov 2026, idle", cells[0], cells[5])
		} else if _, err := time.Parse("2 Jan 2006", when[1]); err != nil {
			t.Errorf("%q: %v", cells[0], err)
		}
		if key := cells[0] + cells[1]; seen[key] {
			t.Errorf("%q by %s is there twice: a new run replaces its row", cells[0], cells[1])
		} else {
			seen[key] = true
		}
	}
	if len(seen) < 70 {
		t.Errorf("%d rows: promises have been lost", len(seen))
	}
}
