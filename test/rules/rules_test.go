package rules

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

const module = "github.com/marchproxy/marchproxy/"

type pkg struct {
	ImportPath, Doc, Dir               string
	Imports, TestImports, XTestImports []string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Doc,Dir,Imports,TestImports,XTestImports,GoFiles,TestGoFiles,XTestGoFiles", "./proto/...", "./pkg/...", "./bpf/...", "./wasm-filters/...", "./services/...", "./test/...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// TestPackageComments: a reader finds out from a package's comment what it is for.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 && !strings.HasPrefix(p.ImportPath, module+"proto/") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// layers says what a part may import of the others: proto ← pkg ← services, and no service another's.
var layers = []struct{ part, may string }{
	{"proto/", "proto/"},
	{"bpf", "bpf"},
	{"wasm-filters", "wasm-filters"},
	{"pkg/", "proto/ pkg/ wasm-filters"},
	{"services/api/", "proto/ pkg/ services/api/"},
	{"services/xds/", "proto/ pkg/ wasm-filters services/xds/"},
	{"services/cli/", "proto/ pkg/ wasm-filters services/cli/"},
	{"services/agent/", "proto/ pkg/ bpf services/agent/"},
	{"test/", "proto/ pkg/ wasm-filters test/"},
}

// only lists libraries that few packages may see, and why.
var only = map[string]struct{ where, why string }{
	"github.com/labstack/echo/v4": {"services/api/internal/web", "the HTTP framework can be changed in one place"},
	"github.com/jackc/pgx/v5": { // harness writes past the store's checks, which is what it is to show
		"services/api/internal/store services/api/internal/pgtest test/harness", "SQL is spoken in one place",
	},
	"github.com/fergusstrange/embedded-postgres": {"services/cli/internal/dev", "production brings its own PostgreSQL"},
}

// without lists what packages must not link, however far down, and why.
var without = []struct{ path, lib, why string }{
	{"services/api/internal/store", "github.com/nats-io/", "the database does not know what its revisions are announced by"},
	{"pkg/config", "github.com/nats-io/", "the configuration does not know what it comes by"},
	{"pkg/translate", "github.com/nats-io/", "the translator does not know what its input comes by"},
}

func TestLinked(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range without {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./"+w.path)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(dep, w.lib) {
				t.Errorf("%s links %s: %s", w.path, dep, w.why)
			}
		}
	}
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range append(append(p.Imports, p.TestImports...), p.XTestImports...) {
			for lib, rule := range only {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(strings.Fields(rule.where), path) {
					t.Errorf("%s imports %s, which only %s may: %s", path, imp, rule.where, rule.why)
				}
			}
			own, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			for _, l := range layers {
				if !strings.HasPrefix(path, l.part) {
					continue
				}
				allowed := false
				for may := range strings.FieldsSeq(l.may) {
					allowed = allowed || strings.HasPrefix(own, may)
				}
				if !allowed {
					t.Errorf("%s imports %s; it may import only %s", path, own, l.may)
				}
			}
		}
	}
}
