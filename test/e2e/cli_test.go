package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// TestCLI is a day with the command line: each step follows from the one before.
func TestCLI(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	port := backend(t, "from the backend")
	c.file("site/10-services.yaml", "kind: Service\nname: web\nspec:\n  endpoints:\n  - {host: 127.0.0.1, port: "+
		port+"}\n")
	c.file("site/20-routes/a.yaml", route("a")+"---\n"+route("b"))
	c.file("site/20-routes/c.json", `[{"kind":"Route","name":"c","spec":{"hosts":["c.example.com"],`+
		`"direct_response":{"status":200,"body":"c"}}}]`)

	out, _ := c.run(0, "validate", "-f", "site")
	c.says(out, "1 Service, 3 Route")
	out, _ = c.run(0, "apply", "-f", "site", "--owner", "team", "--dry-run")
	c.says(out, "would create Route/a", "4 resources would change")
	out, _ = c.run(2, "diff", "-f", "site", "--owner", "team")
	c.says(out, "+++ files Route/a", "+owner: team", "--- /dev/null")
	out, _ = c.run(0, "apply", "-f", "site", "--owner", "team", "--wait", "-m", "the first")
	c.says(out, "create Service/web", "4 changed, 0 unchanged", "live on 1 proxy")
	for host, want := range map[string]string{"a.example.com": "from the backend", "c.example.com": "c"} {
		if status, body := proxied(t, s, host, "/"); status != 200 || body != want {
			t.Errorf("%s: %d %q", host, status, body)
		}
	}
	out, _ = c.run(0, "apply", "-f", "site", "--owner", "team")
	c.says(out, "nothing to do")
	c.run(0, "diff", "-f", "site", "--owner", "team", "--prune")

	// What export prints is what there is.
	out, _ = c.run(0, "export")
	if _, e := c.in(out, 0, "diff", "-f", "-"); e != "" {
		t.Error(e)
	}
	c.in(out, 0, "validate", "-f", "-")
	out, _ = c.run(0, "export", "-o", "json")
	c.in(out, 0, "diff", "-f", "-")
	out, _ = c.run(0, "export", "routes", "--owner", "nobody")
	c.says(out, "0 resources")

	// get
	items := c.json("get", "route", "--owner", "team")["items"].([]any)
	if len(items) != 3 {
		t.Errorf("%d routes", len(items))
	}
	if o := c.json("get", "routes/a"); o["name"] != "a" || o["status"].(map[string]any)["state"] != "live" {
		t.Errorf("%v", o)
	}
	out, _ = c.run(0, "get", "routes", "--host", "b.example.com")
	c.says(out, "NAME", "live", "hosts=b.example.com")
	if strings.Contains(out, "a.example.com") {
		t.Error(out)
	}
	out, _ = c.run(0, "get", "all")
	c.says(out, "Gateway", "Service", "Route")
	out, _ = c.run(0, "get", "service", "web", "-o", "yaml")
	c.in(out, 0, "diff", "-f", "-")
	_, e := c.run(1, "get", "route", "nope")
	c.says(e, `there is no Route "nope"`)
	_, e = c.run(1, "get", "things")
	c.says(e, "kinds: ", "routes")

	// Drift: an edit, a file that is gone.
	c.file("site/20-routes/a.yaml", strings.ReplaceAll(route("a"), "a.example.com", "changed.example.com"))
	out, _ = c.run(2, "diff", "-f", "site", "--owner", "team", "--prune")
	c.says(out, "-    - a.example.com\n+    - changed.example.com\n", "--- live Route/b\n+++ /dev/null")
	out, _ = c.run(2, "diff", "-f", "site", "--owner", "team", "--prune", "-o", "json")
	var diff struct {
		Changes []struct{ Action, Name string }
	}
	if err := json.Unmarshal([]byte(out), &diff); err != nil || len(diff.Changes) != 2 {
		t.Errorf("%v %s", err, out)
	}
	res := c.json("apply", "-f", "site", "--owner", "team", "--prune", "--wait")
	changed := int(res["revision"].(float64))
	if status, body := proxied(t, s, "changed.example.com", "/"); status != 200 || body != "from the backend" {
		t.Errorf("changed: %d %q", status, body)
	}
	if status, _ := proxied(t, s, "b.example.com", "/"); status != 404 {
		t.Errorf("a pruned route answers %d", status)
	}

	// History and back.
	c.says(c.text("revisions"), "the first", fmt.Sprint(changed))
	c.says(c.text("revisions", fmt.Sprint(changed)), "delete Route/b")
	out, _ = c.run(2, "revisions", "diff", fmt.Sprint(changed))
	c.says(out, "+    - changed.example.com")
	out, _ = c.run(0, "revisions", "diff", fmt.Sprint(changed), "--against", fmt.Sprint(changed))
	if out != "" {
		t.Error(out)
	}
	out, _ = c.run(0, "rollback", fmt.Sprint(changed-1), "--dry-run")
	c.says(out, "+    - a.example.com", "would create Route/b", "nothing has been done")
	out, _ = c.run(0, "rollback", fmt.Sprint(changed-1), "--wait")
	c.says(out, "create Route/b", "live on 1 proxy")
	if status, body := proxied(t, s, "a.example.com", "/"); status != 200 || body != "from the backend" {
		t.Errorf("after the rollback: %d %q", status, body)
	}
	_, e = c.run(1, "rollback", "999")
	c.says(e, "there is no revision 999")
	c.says(c.text("audit", "--kind", "route", "--name", "b"), "delete  Route/b", "create  Route/b")
	status := c.json("status")
	if status["revision"] != status["live_revision"] {
		t.Errorf("%v", status)
	}

	// Deletion: what is used stays, and what refers goes first.
	_, e = c.run(1, "delete", "service", "web")
	c.says(e, "Service/web is still used by Route/a, Route/b")
	c.file("site/20-routes/a.yaml", route("a")+"---\n"+route("b"))
	out, _ = c.run(0, "delete", "-f", "site", "--wait")
	if want := "deleted Route/a\ndeleted Route/b\ndeleted Route/c\ndeleted Service/web\n"; !strings.HasPrefix(out, want) {
		t.Errorf("got %s", out)
	}
	if status, _ := proxied(t, s, "a.example.com", "/"); status != 404 {
		t.Errorf("a deleted route answers %d", status)
	}
	c.run(1, "delete", "route", "a")
	c.run(0, "delete", "route", "a", "--ignore-not-found")
	_, e = c.run(1, "delete", "gateway", "default")
	c.says(e, "is the default gateway, which always exists")
	c.says(c.text("version"), "envoy")
	c.says(c.text("__complete", "get", ""), "routes")
	_, e = c.run(1, "get", "routes", "-o", "xml")
	c.says(e, "table, json or yaml")
}

// TestCLIMistakes: each kind of mistake is found without an api, with its file and line; and what the api
// refuses is said the same way, and changes nothing.
func TestCLIMistakes(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	for name, m := range map[string]struct{ text, want string }{
		"unknown field": {
			"kind: Route\nname: r\nspec:\n  hosts: [a.test]\n  backnds: []\n",
			"f.yaml:5: document 1: Route/r spec.backnds is unknown",
		},
		"unknown member": {"kind: Route\nname: r\nsepc: {}\n", `f.yaml:3: document 1: "sepc" is unknown`},
		"unknown kind":   {"kind: Rout\nname: r\nspec: {}\n", `f.yaml:1: document 1: Rout/r kind`},
		"schema": {
			"kind: Service\nname: s\nspec:\n  endpoints:\n  - host: 127.0.0.1\n    port: 70000\n",
			"f.yaml:6: document 1: Service/s spec.endpoints[0].port must be",
		},
		"dangling reference": {
			"kind: Route\nname: r\nspec:\n  backends:\n  - service: none\n",
			`f.yaml:5: document 1: Route/r spec.backends[0].service names the service "none"`,
		},
		"conflict": {
			route("a") + "---\n" + strings.Replace(route("a"), "name: a", "name: b", 1) +
				"---\nkind: Service\nname: web\nspec: {endpoints: [{host: 127.0.0.1, port: 1}]}\n",
			`f.yaml:4: document 1: Route/a spec.hosts[0] host "a.example.com" with this match is already served by route "b"`,
		},
		"Envoy's rule": {
			"kind: Route\nname: r\nspec:\n  path:\n    regex: (\n  direct_response: {status: 200}\n",
			"f.yaml:5: document 1: Route/r spec.path.regex is not an RE2 regular expression",
		},
		"name": {
			"kind: Route\nname: R.1\nspec: {direct_response: {status: 200}}\n",
			"f.yaml:2: document 1: Route/R.1 name must be an RFC 1123 label",
		},
		"owner": {
			"kind: Route\nname: r\nowner: a b\nspec: {direct_response: {status: 200}}\n",
			"f.yaml:3: document 1: Route/r owner must be",
		},
		"certificate": {"kind: Certificate\nname: c\nspec:\n  chain: none\n", "f.yaml:4: document 1: Certificate/c " +
			"spec.chain holds no PEM certificate"},
		"twice":    {route("a") + "---\n" + route("a"), "f.yaml:8: document 2: Route/a is described twice"},
		"not YAML": {"kind: [\n", "f.yaml:"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &terminalOf{T: t, s: s, dir: t.TempDir()}
			c.file("f.yaml", m.text)
			out, stderr := c.run(1, "validate", "-f", "f.yaml")
			c.says(out+stderr, m.want)
			out, stderr = c.run(1, "apply", "-f", "f.yaml")
			c.says(out+stderr, m.want)
		})
	}
	c.file("part.yaml", route("a"))
	c.run(0, "validate", "-f", "part.yaml", "--partial")
	_, e := c.run(1, "apply", "-f", ".", "--prune")
	c.says(e, "--prune needs --owner")
	_, e = c.in("", 1, "apply", "-f", "-", "--prune", "--owner", "team")
	c.says(e, "--allow-empty")
	_, e = c.run(1, "apply", "-f", "part.yaml", "--wait", "--timeout", "2h")
	c.says(e, "--timeout is 2h")
	if now := c.json("status"); now["revision"] != 1.0 {
		t.Errorf("mistakes made revision %v", now["revision"])
	}
}

// TestCLINotLive: what is stored and not live has an exit code of its own. The xDS server is stopped
// for it, so that it can say nothing.
func TestCLINotLive(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	c.file("r.yaml", "kind: Route\nname: r\nspec: {hosts: [r.test], direct_response: {status: 200}}\n")
	xds := s.Pid("xds")
	if err := syscall.Kill(xds, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, e := c.run(3, "apply", "-f", "r.yaml", "--wait", "--timeout", "500ms", "-v")
	c.says(e, "sending 1 resource", "waiting for live: revision", "stored, but not live after")
	if err := syscall.Kill(xds, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	out, _ := c.run(0, "apply", "-f", "r.yaml", "--wait")
	c.says(out, "nothing to do", "live on 1 proxy")

	// What an Envoy refuses (see strict) says so wherever it shows, until it is corrected.
	strict(t, s)
	c.file("bad.yaml", "kind: Route\nname: bad\nspec: {hosts: [bad.test], path: {regex: '"+tooLarge+
		"'}, direct_response: {status: 200}}\n")
	out, e = c.run(3, "apply", "-f", "bad.yaml", "--wait")
	c.says(out+e, "create Route/bad", "an Envoy refused it", "regex")
	out, e = c.run(3, "status")
	c.says(out+e, "refused: Route/bad on gateway default", "regex", "1 resource refused by an Envoy")
	c.says(c.text("get", "routes"), "rejected", "Route/bad was refused by an Envoy")
	c.file("bad.yaml", "kind: Route\nname: bad\nspec: {hosts: [bad.test], direct_response: {status: 200}}\n")
	c.run(0, "apply", "-f", "bad.yaml", "--wait")
	c.run(0, "status")
}

// TestCLIMore shares one system.
func TestCLIMore(t *testing.T) {
	s := start(t, "--no-demo")
	t.Run("events", func(t *testing.T) { cliEvents(t, s) })
	t.Run("repeats", func(t *testing.T) { cliRepeats(t, s) })
	t.Run("tokens", func(t *testing.T) { cliTokens(t, s) })
}

// cliRepeats: a write whose answer is lost is sent again and acts once.
func cliRepeats(t *testing.T, s *harness.System) {
	t.Helper()
	api, err := url.Parse(s.API)
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int32
	lossy := httputil.NewSingleHostReverseProxy(api)
	lossy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == http.MethodPost && sent.Add(1) < 3 {
			return errors.New("lost")
		}
		return nil
	}
	// the connection breaks
	lossy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	between := httptest.NewServer(lossy)
	t.Cleanup(between.Close)
	c := &terminalOf{T: t, s: s, dir: t.TempDir(), env: []string{"MARCHPROXY_API=" + between.URL}}
	before := c.json("status")["revision"].(float64)
	c.file("r.yaml", "kind: Route\nname: twice\nspec: {hosts: [twice.test], direct_response: {status: 200}}\n")
	out, e := c.run(0, "apply", "-f", "r.yaml", "-v", "--wait")
	c.says(e, "sending again")
	c.says(out, "create Route/twice", "live on 1 proxy")
	if now := c.json("status")["revision"].(float64); now != before+1 || sent.Load() != 3 {
		t.Errorf("sent %d times, which made %v revisions", sent.Load(), now-before)
	}
}

// cliEvents: events are followed, and taken up again after a restart of the api without a gap.
func cliEvents(t *testing.T, s *harness.System) {
	t.Helper()
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	cmd := s.CLI(t.Context(), "events", "--after", "0", "--revisions", "-o", "json")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	next := func(want string) {
		t.Helper()
		var e struct{ Event, ID string }
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &e) != nil || e.Event != "revision" || e.ID != want {
			t.Fatalf("event %+v of %q, want revision %s", e, lines.Text(), want)
		}
	}
	apply := func(i int) {
		c.in(fmt.Sprintf("kind: Route\nname: r\nspec: {hosts: [r%d.test], direct_response: {status: 200}}\n", i), 0,
			"apply", "-f", "-")
	}
	next("1")
	apply(1)
	next("2")
	if err := syscall.Kill(s.Pid("api"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ready(t, s)
	apply(2)
	apply(3)
	next("3")
	next("4")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("events ends with %v", err)
	}
}

// ready waits until the api, which was killed, answers again.
func ready(t *testing.T, s *harness.System) {
	t.Helper()
	for limit := time.After(time.Minute); ; {
		if status, _, err := s.Call(t.Context(), "GET", s.API+"/readyz", nil); err == nil && status == 200 {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-limit:
			t.Fatal("the api does not come back")
		}
	}
}

// cliTokens: what a token may do, and what the refusal of another says.
func cliTokens(t *testing.T, s *harness.System) {
	t.Helper()
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	secret, e := c.run(0, "token", "create", "reader", "--role", "viewer")
	c.says(e, `token "reader" with the role viewer`)
	c.file("token", secret)
	c.file("r.yaml", "kind: Route\nname: r\nspec: {hosts: [r.test], direct_response: {status: 200}}\n")
	if _, e = c.run(0, "get", "routes", "--token-file", "token"); e != "" {
		t.Error(e)
	}
	c.env = []string{"MARCHPROXY_TOKEN_FILE=" + filepath.Join(c.dir, "token")}
	_, e = c.run(1, "apply", "-f", "r.yaml")
	c.says(e, `has the role viewer; this needs editor`, "marchproxy token create")
	if err := os.Chmod(filepath.Join(c.dir, "token"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, e = c.run(0, "get", "routes")
	c.says(e, "can be read by other users", "chmod 600")
	if err := os.Chmod(filepath.Join(c.dir, "token"), 0o440); err != nil { // as docker compose has it
		t.Fatal(err)
	}
	if _, e = c.run(0, "get", "routes"); e != "" {
		t.Error(e)
	}
	c.env = []string{"MARCHPROXY_TOKEN_FILE=", "MARCHPROXY_TOKEN=wrong"}
	_, e = c.run(1, "get", "routes")
	c.says(e, "is not known")
	c.env = nil
	if names := c.json("token", "list")["items"].([]any); !slices.ContainsFunc(names,
		func(x any) bool { return x.(map[string]any)["name"] == "reader" }) {
		t.Errorf("%v", names)
	}
	c.run(0, "token", "delete", "reader")
	_, e = c.run(1, "get", "routes", "--token-file", "token")
	c.says(e, "is not known")
}
