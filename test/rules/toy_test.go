package rules

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// edits are the lines that a new kind has in files that are there already: each goes after another one.
var edits = map[string]struct{ after, line string }{
	"pkg/config/kinds.go":          {"		&rateLimitKind,\n", "		&toyKind,\n"},
	"pkg/translate/kinds.go":       {"var kinds = map[string]kind{\n", "	\"Toy\": toyKind,\n"},
	"docs/asyncapi.yaml":           {"enum: [auth_policy, certificate, gateway, license, rate_limit_policy, route, service", ", toy"},
	"test/security/scopes_test.go": {"	return map[string]string{\n", "		\"Toy\": `{\"owner\":\"team-` + x + `\",\"spec\":{\"gateway\":\"g` + x + `\"}}`,\n"},
}

// TestToyKind: a kind is added by the files that CONTRIBUTING.md lists, and by nothing else. It makes a copy of the tree
// with a kind that has a reference, a check, a secret that is sealed and one that is hashed; what asks about every kind
// passes there, and the real api makes, shows, changes, publishes and deletes one.
func TestToyKind(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(manual), "\n## How to add a kind\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !found {
		t.Fatal("CONTRIBUTING.md does not say how to add a kind")
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		listed[strings.ReplaceAll(m[1], "KIND", "toy")] = true
	}
	files := map[string][]byte{}
	from := filepath.Join("testdata", "toy")
	if err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		to, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		files[to], err = os.ReadFile(path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	touched := slices.Concat(slices.Collect(maps.Keys(files)), slices.Collect(maps.Keys(edits)))
	slices.Sort(touched)
	if want := slices.Sorted(maps.Keys(listed)); !slices.Equal(touched, want) {
		t.Fatalf("a kind is made by\n%s\nand CONTRIBUTING.md lists\n%s", strings.Join(touched, "\n"), strings.Join(want, "\n"))
	}

	tree := copyOf(t, root)
	for to, raw := range files {
		write(t, filepath.Join(tree, to), raw)
	}
	for to, e := range edits {
		raw, err := os.ReadFile(filepath.Join(tree, to))
		if err != nil {
			t.Fatal(err)
		}
		before, after, found := strings.Cut(string(raw), e.after)
		if !found {
			t.Fatalf("%s has no line %q", to, e.after)
		}
		write(t, filepath.Join(tree, to), []byte(before+e.after+e.line+after))
	}
	api, err := os.ReadFile(filepath.Join("testdata", "toy_api_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tree, "services/api/internal/relay/toy_test.go"), api)
	run(t, tree, "scripts/generate")
	run(t, tree, "go", "test", "./pkg/translate", "-run", "TestGolden/toy$", "-update")
	run(t, tree, "go", "test", "./pkg/resource", "./pkg/config", "./pkg/translate", "./services/api/internal/relay", "./test/events",
		"-run", "^(Test(Kinds|Secrets.*|Forms|Golden|UpdateEqualsRebuild|FormatsAreWalked|Toy|AsyncAPI))$")
}

// copyOf copies the tree without what is made of it, but with the tools that are built already.
func copyOf(t *testing.T, root string) string {
	t.Helper()
	tree := t.TempDir()
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case name == ".git" || name == ".cache" || name == "bin":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil // .git of a work tree
		case !d.Type().IsRegular():
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		write(t, filepath.Join(tree, name), raw)
		return os.Chmod(filepath.Join(tree, name), info.Mode())
	}); err != nil {
		t.Fatal(err)
	}
	tools := filepath.Join(root, ".cache", "bin")
	if err := os.MkdirAll(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(tree, ".cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tools, filepath.Join(tree, ".cache", "bin")); err != nil {
		t.Fatal(err)
	}
	return tree
}

func write(t *testing.T, path string, raw []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	if strings.Contains(name, "/") {
		cmd.Path = filepath.Join(dir, name)
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}
