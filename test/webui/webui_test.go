// Package webui looks at the web UI as people do: with a browser, at a real system.
package webui

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/provider"
)

var (
	only  = flag.String("only", "", "an expression that the titles of the tests fit which are run; all where empty")
	shots = flag.String("shots", "", "the directory docs, for the pictures in docs/images; none are made where empty")
	every = flag.String("every", "", "where a screenshot of every page is put, in each scheme and width; none where empty")
	score = flag.Int("score", 60, "the least score of Lighthouse for performance: 95 where nothing else runs")
	last  = flag.Int("minutes", 1, "for how many minutes events come while it is measured what pages hold")
)

// TestPages runs what people do with the pages, by Debian's Chromium.
func TestPages(t *testing.T) {
	s := harness.ForTest(t, nil)
	// One of the tests needs something that Envoy refuses and the api does not: a limit that is Envoy's own.
	strict(t, s)
	play(t, s, []string{"MARCHPROXY_BACKEND_PORT=" + backend(t, s)}, "01-path", "02-pages", "06-try", "07-traffic", "08-accesslog")
}

// strict has the system's Envoy refuse long expressions.
func strict(t *testing.T, s *harness.System) {
	t.Helper()
	status, body, err := s.AdminSocket().Do(t.Context(), "POST", "/runtime_modify?re2.max_program_size.error_level=100")
	if err != nil || status != 200 {
		t.Fatalf("runtime_modify: %d %s %v", status, body, err)
	}
}

// play runs the files of services/webui/tests whose names have one of these words in them.
func play(t *testing.T, s *harness.System, env []string, files ...string) {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", name), args...)
		c.Dir, c.Stderr = filepath.Join(root, "services", "webui"), os.Stderr
		return c
	}
	if err := run("needs", "chromium").Run(); err != nil {
		t.Fatal(err)
	}
	out, err := run("npm-ci", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(strings.TrimSpace(string(out)), "node_modules")
	link(t, modules, filepath.Join(root, "services", "webui", "node_modules"))
	token, err := s.Token()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"node_modules/@playwright/test/cli.js", "test", "--grep", *only, "--pass-with-no-tests"}
	c := run("node", append(args, files...)...)
	c.Env = append(append(os.Environ(), "MARCHPROXY_UI="+s.UI, "MARCHPROXY_API="+s.API, "MARCHPROXY_TOKEN="+token,
		fmt.Sprintf("MARCHPROXY_PROXY_PORT=%d", s.ProxyPort), "MARCHPROXY_SHOTS="+*shots, "MARCHPROXY_EVERY="+*every,
		"MARCHPROXY_RUN="+filepath.Join(s.Dir, "run.json"), fmt.Sprintf("MARCHPROXY_MINUTES=%d", *last),
		fmt.Sprintf("MARCHPROXY_SCORE=%d", *score),
		"MARCHPROXY_RESULTS="+filepath.Join(t.TempDir(), "results")), env...)
	c.Stdout = os.Stdout
	if err := c.Run(); err != nil {
		t.Errorf("the browser's tests: %v", err)
	}
}

// link has the modules where the sources look for them.
func link(t *testing.T, modules, at string) {
	t.Helper()
	if to, err := os.Readlink(at); err == nil && to == modules {
		return
	}
	if err := os.RemoveAll(at); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, at); err != nil {
		t.Fatal(err)
	}
}

// backend is the port of the system's demo backend.
func backend(t *testing.T, s *harness.System) string {
	t.Helper()
	spec, _ := s.Want(t, "GET", s.API+"/v1/services/demo", nil, 200)["spec"].(map[string]any)
	endpoints, _ := spec["endpoints"].([]any)
	if len(endpoints) != 1 {
		t.Fatalf("the demo's service is %v", spec)
	}
	return fmt.Sprint(endpoints[0].(map[string]any)["port"])
}

// TestAccounts is how people sign in, with a password and by a provider, and what is theirs.
func TestAccounts(t *testing.T) {
	s := harness.ForTest(t, nil)
	p := provider.Start(t, s.UI+"/v1/session/oidc/callback")
	p.Groups("carol", "captains")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Setenv(p.Env("captains=operator")...)
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	play(t, s, nil, "07-accounts")
}

// TestDocs looks at the documentation: all of it with the browser's policy, some of it in each scheme and width.
func TestDocs(t *testing.T) {
	play(t, harness.ForTest(t, nil, "--no-demo"), nil, "08-docs")
}
