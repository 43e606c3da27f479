package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/test/harness"
)

var (
	fence  = regexp.MustCompile("(?ms)^```(sh|json)\n(.*?)^```$")
	asked  = regexp.MustCompile(`(^|[;|&(]\s*)(curl|marchproxy) `)
	answer = regexp.MustCompile(`\s# (?:exit code )?([0-9]+)\b`)
	server = regexp.MustCompile(`(?m)^python3 -m http\.server ([0-9]+) .*&$`)
)

// TestDocsCommands runs the shell commands of documents as they are written, each document from its first to
// its last on a system of its own: every curl must be answered with 2xx, or with what its line says (# 401),
// every marchproxy must end with exit code 0, or with what its line says (# exit code 2). Only the ports are
// other ones, and a server that a document starts is waited for.
func TestDocsCommands(t *testing.T) {
	t.Setenv("LICENSE_KEY", "PENG-TEST-TEST-TEST-0001-OC3Z") // as license.md has it
	for _, c := range []struct {
		doc      string
		commands int // at least: fewer means that this test does not see them
	}{
		{"getting-started.md", 14},
		{"auth.md", 8},
		{"license.md", 3},
		{"rate-limits.md", 2},
		{"scaling.md", 21},
		{"localities.md", 5},
		{"locality_drain.md", 4},
	} {
		t.Run(c.doc, func(t *testing.T) {
			runs(t, start(t), c.doc, c.commands)
		})
	}
}

// TestGuides does the same with the guides, one after the other on one system.
func TestGuides(t *testing.T) {
	s := start(t)
	guides := []struct {
		doc      string
		commands int
	}{
		{"canary.md", 5},
		{"rotate-a-key.md", 9},
		{"block-a-network.md", 4},
		{"roll-back.md", 9},
		{"find-a-404.md", 6},
		{"tls.md", 4}, // the last one: it gives the gateway another listener
	}
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	pages, err := os.ReadDir(filepath.Join(root, "docs", "guides"))
	if err != nil || len(pages) != len(guides)+1 { // and the list of them
		t.Errorf("%d pages, of which %d are run: %v", len(pages), len(guides), err)
	}
	for _, c := range guides {
		t.Run(c.doc, func(t *testing.T) { runs(t, s, "guides/"+c.doc, c.commands) })
	}
}

// runs runs a document's commands on a system; there are at least so many.
func runs(t *testing.T, s *harness.System, doc string, least int) {
	t.Helper()
	script, want := commands(t, s, doc)
	if len(want) < least {
		t.Fatalf("only %d commands are found", len(want))
	}
	statuses := filepath.Join(t.TempDir(), "statuses")
	cmd := exec.CommandContext(t.Context(), "bash", "-c", `set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
curl() { command curl -sS --max-time 60 -w '%{stderr}%{http_code}\n' "$@" 2>>"$STATUSES"; echo; }
marchproxy() { local code=0; "$MARCHPROXY" "$@" || code=$?; echo "$code" >>"$STATUSES"; }
`+script)
	cli := s.CLI(t.Context())
	cmd.Dir, cmd.Env = t.TempDir(), append(cli.Env, "STATUSES="+statuses, "MARCHPROXY="+cli.Path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raw, err := os.ReadFile(statuses)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(raw))
	if len(got) != len(want) {
		t.Fatalf("%d commands, %d answers: %v\n%s", len(want), len(got), got, out)
	}
	for i, w := range want {
		if !regexp.MustCompile("^(" + w.answer + ")$").MatchString(got[i]) {
			t.Errorf("%s:%d: answered %s, want %s\n%s", doc, w.line, got[i], w.answer, out)
		}
	}
}

// expected is what a command in a document is to be answered with, as a regular expression.
type expected struct {
	line   int
	answer string
}

// commands are a document's shell commands, for a system's ports, and what they are to be answered with.
func commands(t *testing.T, s *harness.System, name string) (script string, want []expected) {
	t.Helper()
	text := document(t, name)
	for _, m := range fence.FindAllStringSubmatchIndex(text, -1) {
		if text[m[2]:m[3]] != "sh" {
			continue
		}
		block := text[m[4]:m[5]]
		for i, line := range strings.Split(block, "\n") {
			for _, a := range asked.FindAllStringSubmatch(line, -1) {
				usual := map[string]string{"curl": "2..", "marchproxy": "0"}[a[2]]
				want = append(want, expected{strings.Count(text[:m[4]], "\n") + i + 1, usual})
			}
			if a := answer.FindStringSubmatch(line); a != nil && len(want) > 0 {
				want[len(want)-1].answer = a[1]
			}
		}
		script += block
	}
	if m := server.FindStringSubmatch(script); m != nil {
		free, err := porttest.Take(1)
		if err != nil {
			t.Fatal(err)
		}
		port := strconv.Itoa(free[0])
		wait := "\nuntil (exec 3<>/dev/tcp/127.0.0.1/" + port + ") 2>/dev/null; do sleep 0.05; done"
		script = strings.Replace(strings.ReplaceAll(script, m[1], port), "127.0.0.1 &", "127.0.0.1 &"+wait, 1)
	}
	if strings.Contains(script, "10443") {
		free, err := porttest.Take(1)
		if err != nil {
			t.Fatal(err)
		}
		script = strings.ReplaceAll(script, "10443", strconv.Itoa(free[0]))
	}
	for port, at := range map[string]string{"8000": s.API, "19000": s.XDS, "9901": s.Admin, "10000": "http://" + s.Proxy} {
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		script = strings.ReplaceAll(script, "localhost:"+port, "localhost:"+u.Port())
		script = strings.ReplaceAll(script, "port: "+port, "port: "+u.Port())
	}
	return script, want
}

func document(t *testing.T, name string) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestDocsSpecs: the JSON that documents show as a spec is one of some kind, by the schema's rules.
func TestDocsSpecs(t *testing.T) {
	found := 0
	for _, name := range []string{"auth.md", "license.md", "rate-limits.md"} {
		for _, m := range fence.FindAllStringSubmatch(document(t, name), -1) {
			if m[1] != "json" {
				continue
			}
			found++
			if why := anyKind([]byte(m[2])); why != "" {
				t.Errorf("%s: %s\n%s", name, why, m[2])
			}
		}
	}
	if found < 2 {
		t.Errorf("only %d are found", found)
	}
}

func anyKind(spec []byte) string {
	if !json.Valid(spec) {
		return "is not JSON"
	}
	var why []string
	for _, k := range resource.Kinds {
		m, v := resource.DecodeSpec(k, spec)
		if len(v) == 0 {
			v = resource.Validate(m)
		}
		if len(v) == 0 {
			return ""
		}
		why = append(why, fmt.Sprintf("as %s: %v", k.Name, v))
	}
	return strings.Join(why, "\n")
}
