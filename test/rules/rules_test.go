package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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
	cmd := exec.CommandContext(t.Context(), "go", "list",
		"-json=ImportPath,Doc,Dir,Imports,TestImports,XTestImports,GoFiles,TestGoFiles,XTestGoFiles", "./proto/...",
		"./pkg/...", "./bpf/...", "./wasm-filters/...", "./services/...", "./test/...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, out)
}

func decode(t *testing.T, list []byte) []pkg {
	t.Helper()
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(list)); ; {
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
	{"services/api/", "proto/ pkg/ services/api/ services/webui services/docsite"},
	{"services/webui", "services/webui services/static"},
	{"services/docsite", "services/docsite services/static"},
	{"services/static", ""},
	{"services/xds/", "proto/ pkg/ wasm-filters services/xds/"},
	{"services/cli/", "proto/ pkg/ wasm-filters services/cli/"},
	{"services/agent/", "proto/ pkg/ bpf services/agent/"},
	{"services/discover/", "proto/ pkg/ services/discover/"},
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

// without lists what packages must not link, however far down, and why. A name stands for what is below it too.
var without = []struct{ paths, libs, why string }{
	{"services/api/internal/store", "github.com/nats-io", "the database does not know what its revisions " +
		"are announced by"},
	{"pkg/config", "github.com/nats-io", "the configuration does not know what it comes by"},
	{"pkg/translate", "github.com/nats-io", "the translator does not know what its input comes by"},
	{"pkg/resource pkg/config", "github.com/envoyproxy", "what an operator writes does not know what it is " +
		"translated into"},
	{api + xds + agent, "testing net/http/httptest " + module + "pkg/natstest", "what serves has no test's code, flags " +
		"or servers in it"},
	{api + xds + agent + cli, module + "pkg/hermetic", "a program that links it has lost the environment " +
		"that configures it"},
	{
		api + xds + agent, "github.com/nats-io/nats-server github.com/fergusstrange",
		"production brings its own NATS and PostgreSQL",
	},
	{api + xds + agent, "net/http/pprof", "it adds itself to the default handler, and tells of the memory, in " +
		"which secrets are"},
	{xds + agent + cli, "github.com/jackc", "the api alone speaks to the database"},
	{xds + agent + cli, "github.com/labstack", "the api alone has an HTTP framework to choose"},
	{api + xds + cli, "github.com/cilium", "the agent alone speaks to the kernel, and needs a capability for it"},
	{agent, "github.com/tetratelabs/wazero", "an agent leaves memory to its proxy: what compiles filters is where " +
		"policies are checked"},
}

// The programs, as without names them.
const (
	api   = "services/api/cmd/marchproxy-api "
	xds   = "services/xds/cmd/marchproxy-xds "
	agent = "services/agent/cmd/marchproxy-agent "
	cli   = "services/cli/cmd/marchproxy "
)

// TestLinked names what must not be linked and is, with the imports that lead there.
func TestLinked(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"list", "-deps", "-json=ImportPath,Imports"}
	for _, w := range without {
		for path := range strings.FieldsSeq(w.paths) {
			args = append(args, "./"+path)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for _, p := range decode(t, out) {
		imports[p.ImportPath] = p.Imports
	}
	for _, w := range without {
		for path := range strings.FieldsSeq(w.paths) {
			if len(imports[module+path]) == 0 {
				t.Errorf("%s, which a rule is about, imports nothing, or is not there", path)
			}
			for lib := range strings.FieldsSeq(w.libs) {
				if way := leads(imports, module+path, lib); way != nil {
					t.Errorf("%s links %s: %s. It comes by %s", path, way[len(way)-1], w.why, strings.Join(way, " -> "))
				}
			}
		}
	}
}

// leads is the shortest way of imports from a package to one of a library; nil where there is none.
func leads(imports map[string][]string, from, lib string) []string {
	by := map[string]string{from: ""}
	for next := []string{from}; len(next) > 0; next = next[1:] {
		if at := next[0]; at == lib || strings.HasPrefix(at, lib+"/") {
			var way []string
			for ; at != ""; at = by[at] {
				way = append(way, at)
			}
			slices.Reverse(way)
			return way
		}
		for _, i := range imports[next[0]] {
			if _, seen := by[i]; !seen {
				by[i] = next[0]
				next = append(next, i)
			}
		}
	}
	return nil
}

// TestLeads: a rule about what is linked looks through what is between, and takes no library for another one of a like
// name.
func TestLeads(t *testing.T) {
	imports := map[string][]string{"a": {"b", "c"}, "b": {"c"}, "c": {"lib/x", "a"}, "d": {"library"}}
	if way := leads(imports, "a", "lib"); !slices.Equal(way, []string{"a", "c", "lib/x"}) {
		t.Errorf("way %v", way)
	}
	if way := leads(imports, "d", "lib"); way != nil {
		t.Errorf("way %v", way)
	}
}

// untested are packages of more than enough lines that have no tests beside them, and why.
var untested = map[string]string{
	"pkg/dnstest": "a DNS server for tests, which those of the resolver would not pass without",
	"pkg/translate/arbitrary": "it makes the cases of pkg/translate's fuzzing and of test/golden, which fail " +
		"where it makes none of a kind",
	"services/discover/internal/server": "test/cmd/check-discover runs the program beside a real Docker engine",
	"services/agent/internal/envoy": "test/e2e and test/security have it keep, drain and lose a real Envoy, which " +
		"is what it is for",
}

// enough is how many lines a package may have without tests of its own.
const enough = 150

// TestTested: a package that is more than a few lines has tests beside it, which say what it promises and are run by
// who changes it. Those below test/ are proof themselves: what they measure and break is the real system.
func TestTested(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(path, "test/") || strings.HasPrefix(path, "proto/") || len(p.TestGoFiles)+
			len(p.XTestGoFiles) > 0 {
			continue
		}
		lines := 0
		for _, f := range p.GoFiles {
			raw, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(raw, []byte("// Code generated")) {
				lines += bytes.Count(raw, []byte("\n"))
			}
		}
		if lines <= enough {
			continue
		}
		seen[path] = true
		if untested[path] == "" {
			t.Errorf("%s has %d lines and no tests beside it; what does it promise?", path, lines)
		}
	}
	for path := range untested {
		if !seen[path] {
			t.Errorf("%s is excused from having tests, and has them, or is not there", path)
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
