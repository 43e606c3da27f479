package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestWords: what the command line says where it once left its reader without an answer.
func TestWords(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}

	// The doctor's report is JSON, as programs ask for it: where all agree, and where a part is away.
	agree(t, s)
	report := c.json("doctor")
	if report["agree"] != true || len(report["parts"].([]any)) != 4 || len(report["differences"].([]any)) != 0 {
		t.Errorf("doctor: %v", report)
	}
	out, _ := c.run(2, "doctor", "-o", "json", "--admin", "http://127.0.0.1:1")
	var wrong struct {
		Agree       bool
		Differences []string
	}
	if err := json.Unmarshal([]byte(out), &wrong); err != nil || wrong.Agree || len(wrong.Differences) != 1 ||
		!strings.HasPrefix(wrong.Differences[0], "Envoy cannot be looked at: ") {
		t.Errorf("doctor without Envoy: %v\n%s", err, out)
	}

	// A change of the owner or of labels alone is seen, by people and by programs.
	c.file("r.yaml", "kind: Route\nname: r\nowner: me\nlabels: {tier: a}\nspec: {hosts: [r.test], direct_response: "+
		"{status: 200}}\n")
	c.run(0, "apply", "-f", "r.yaml")
	c.file("r.yaml", "kind: Route\nname: r\nowner: you\nlabels: {tier: b}\nspec: {hosts: [r.test], direct_response: "+
		"{status: 200}}\n")
	out, _ = c.run(2, "diff", "-f", "r.yaml", "--take-over")
	c.says(out, "-owner: me\n", "+owner: you\n", "-  tier: a\n", "+  tier: b\n", " name: r\n")
	out, _ = c.run(2, "diff", "-f", "r.yaml", "--take-over", "-o", "json")
	envelope(t, out)
	c.run(0, "apply", "-f", "r.yaml", "--take-over")
	last := fmt.Sprint(call(t, s, "GET", s.API+"/v1/status", nil, 200)["revision"])
	out, _ = c.run(2, "revisions", "diff", last)
	c.says(out, "-owner: me\n", "+owner: you\n", "-  tier: a\n", "+  tier: b\n")
	out, _ = c.run(2, "revisions", "diff", last, "-o", "json")
	envelope(t, out)

	// What is not there is named, with where to look.
	_, e := c.run(1, "limits", "nosuch")
	c.says(e, `there is no RateLimitPolicy "nosuch"; marchproxy get rate-limit-policies lists them`)
	status, raw, err := s.Call(t.Context(), "GET", s.API+"/v1/rate-limit-policies/nosuch/status", nil)
	if err != nil || status != 404 ||
		!strings.Contains(string(raw), `there is no RateLimitPolicy \"nosuch\"; GET /v1/rate-limit-policies lists`) {
		t.Errorf("limits of a policy that is not there: %d %s %v", status, raw, err)
	}
}

// envelope fails unless the one change is of owner and labels.
func envelope(t *testing.T, out string) {
	t.Helper()
	var d struct {
		Changes []struct {
			Before       any
			After        any
			OwnerBefore  string            `json:"owner_before"`
			OwnerAfter   string            `json:"owner_after"`
			LabelsBefore map[string]string `json:"labels_before"`
			LabelsAfter  map[string]string `json:"labels_after"`
		}
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Changes) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	x := d.Changes[0]
	if !reflect.DeepEqual(x.Before, x.After) || x.OwnerBefore != "me" || x.OwnerAfter != "you" ||
		x.LabelsBefore["tier"] != "a" || x.LabelsAfter["tier"] != "b" {
		t.Errorf("the change is told as %+v", x)
	}
}

// TestOutputJSON: every command that prints a result prints JSON where it is asked to.
func TestOutputJSON(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	c.file("f.yaml", "kind: RateLimitPolicy\nname: p\nspec: {cidrs: [192.0.2.0/24], packets_per_second: 1000}\n")
	c.file("guide.json", `{"services": [{"name": "a", "hosts": ["10.0.0.1"], "port": 80}], "routes": []}`)
	c.run(0, "pki", "init")
	// a script, a program, a stream of lines, each of them JSON, and one that has no result to print
	seen := []string{"completion", "dev", "docs", "help", "events", "logs", "filters"}
	saved := filepath.Join(c.dir, "saved")
	for _, args := range []string{
		"apply -f f.yaml", "diff -f f.yaml", "validate -f f.yaml", "export", "get all", "get ratelimitpolicy p", "limits p",
		"certificates", "import guide.json", "explain http://shop.example.com/",
		"revisions", "revisions 1", "revisions diff 1", "rollback 1", "audit", "token create x --role viewer", "token list",
		"token delete x", "user list", "user add ann --role viewer", "user role ann --role editor", "user passwd ann",
		"user disable ann", "user enable ann", "user delete ann",
		"apply -f f.yaml", "delete -f f.yaml", "drain --zone a", "undrain --zone a", "status", "proxies", "health", "traffic",
		"doctor", "version",
		"pki issue xds xds-1 --host xds.test", "pki renew",
		"backup --state-dir " + s.Dir + " " + saved, "restore --check --state-dir " + s.Dir + " " + saved, "compose init --dir stack",
	} {
		fields := strings.Fields(args)
		seen = append(seen, fields[0])
		cmd := s.CLI(t.Context(), append(fields, "-o", "json")...)
		cmd.Dir = c.dir
		if fields[0] == "user" {
			cmd.Stdin = strings.NewReader("four words or even more\n") // the password
		}
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if exit != nil && exit.ExitCode() == 1 {
			t.Errorf("%s: %v: %s", args, err, exit.Stderr)
		}
		if !json.Valid(out) {
			t.Errorf("%s -o json prints\n%s", args, out)
		}
	}
	help, _ := c.run(0, "help")
	_, list, _ := strings.Cut(help, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		if name := strings.Fields(line)[0]; !slices.Contains(seen, name) {
			t.Errorf("%s is not looked at here", name)
		}
	}
}
