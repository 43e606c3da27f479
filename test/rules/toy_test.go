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

// toy is something of a kind that the project has several of, which a test adds to a copy of the tree.
type toy struct {
	// section is that of CONTRIBUTING.md with the files it takes, where word stands for its name, which is name here.
	section, word, name string
	// files is a directory below testdata with those that are new, and edits has the lines of the others: each goes after
	// another one.
	files string
	edits map[string]edit
	// test is a file of testdata that is a test in the copy, by the path that it has there.
	test, at string
}

type edit struct{ after, line string }

// plant makes the copy. It fails where the toy is not made by the files that CONTRIBUTING.md lists.
func (y toy) plant(t *testing.T) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(manual), "\n## "+y.section+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !found {
		t.Fatalf("CONTRIBUTING.md has no section %q", y.section)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		listed[strings.ReplaceAll(m[1], y.word, y.name)] = true
	}
	files := map[string][]byte{}
	from := filepath.Join("testdata", y.files)
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
	touched := slices.Concat(slices.Collect(maps.Keys(files)), slices.Collect(maps.Keys(y.edits)))
	slices.Sort(touched)
	if want := slices.Sorted(maps.Keys(listed)); !slices.Equal(touched, want) {
		t.Fatalf("it is made by\n%s\nand CONTRIBUTING.md lists\n%s", strings.Join(touched, "\n"), strings.Join(want, "\n"))
	}

	tree := copyOf(t, root)
	for to, raw := range files {
		write(t, filepath.Join(tree, to), raw)
	}
	for to, e := range y.edits {
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
	own, err := os.ReadFile(filepath.Join("testdata", y.test))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tree, y.at), own)
	run(t, tree, "scripts/generate")
	return tree
}

// TestToyKind: a kind is added by the files that CONTRIBUTING.md lists, and by nothing else. It makes a copy of the
// tree with a kind that has a reference, a check, a secret that is sealed and one that is hashed; what asks about every
// kind passes there, and the real api makes, shows, changes, publishes and deletes one.
func TestToyKind(t *testing.T) {
	tree := toy{
		section: "How to add a kind", word: "KIND", name: "toy", files: "toy",
		edits: map[string]edit{
			"pkg/config/kinds.go":    {"		&rateLimitKind,\n", "		&toyKind,\n"},
			"pkg/translate/kinds.go": {"var kinds = map[string]kind{\n", "	\"Toy\": toyKind,\n"},
			"docs/asyncapi.yaml": {"enum: [auth_policy, certificate, certificate_challenge, " +
				"certificate_issuer, endpoint_set, gateway, license, locality_drain, " +
				"rate_limit_policy, route, service", ", toy"},
			"services/docsite/data/nav.yaml": {"- title: Concepts\n  pages:\n", "  - {page: toy, title: Toys, text: \"for a test\"}\n"},
			"test/security/scopes_test.go": {"	return map[string]string{\n", "		\"Toy\": `{\"owner\":\"team-` + x + " +
				"`\",\"spec\":{\"gateway\":\"g` + x + `\"}}`,\n"},
		},
		test: "toy_api_test.go", at: "services/api/internal/relay/toy_test.go",
	}.plant(t)
	run(t, tree, "go", "test", "./pkg/translate", "-run", "TestGolden/toy$", "-update")
	run(t, tree, "go", "test", "./pkg/resource", "./pkg/config", "./pkg/translate", "./services/api/internal/relay",
		"./test/events",
		"-run", "^(Test(Kinds|Secrets.*|Forms|Golden|Direction|UpdateEqualsRebuild|FormatsAreWalked|Toy|AsyncAPI))$")
}

// TestToyFilter: a filter is added by the files that CONTRIBUTING.md lists, and by nothing else. It makes a copy of the
// tree with a filter that a route asks for, which sends traffic to a service that the route names: it has its place in
// every listener, its route waits for it and for the cluster, and the first one changes no listener. Arbitrary
// configurations with it are built without a flaw.
func TestToyFilter(t *testing.T) {
	tree := toy{
		section: "How to add a filter", word: "FILTER", name: "toyfilter", files: "toyfilter",
		edits: map[string]edit{
			"pkg/translate/filters.go": {"	filterRouteRate,    // routelimit.go\n", "	filterToy,          // toyfilter.go\n"},
			"proto/marchproxy/config/v1/route.proto": {
				"  LocalRateLimit local_rate_limit = 18;\n",
				"  // The Service that is told of each request; nobody where empty.\n" +
					"  string toy = 900 [(buf.validate.field).string.max_len = 63];\n",
			},
			"pkg/config/route.go": {"	m := routeOf(o)\n", "	r.add(resource.KindService, m.GetToy(), \"$.toy\")\n"},
			"docs/filters.md": {"|---|---|---|---|\n", "| `toy` | nothing: tells a service of each request | " +
				"none | open |\n"},
		},
		test: "toyfilter_translate_test.go", at: "pkg/translate/toyfilter_test.go",
	}.plant(t)
	run(t, tree, "go", "test", "./pkg/translate", "-run", "TestGolden", "-update")
	run(t, tree, "go", "test", "./pkg/resource", "./pkg/config", "./pkg/translate",
		"-run",
		"^(Test(Secrets.*|Forms|Golden|Direction|UpdateEqualsRebuild|FormatsAreWalked|Drain.*|ToyFilter)|FuzzTranslate)$")
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
		case name == ".git" || name == ".cache" || name == "bin" || name == filepath.Join("wasm-filters", "target"):
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
