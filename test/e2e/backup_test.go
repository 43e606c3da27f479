package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// TestBackup: `marchproxy backup` while the system runs, 100 writes more, and `marchproxy restore` under the running
// system, whose parts all follow to the lower revision; then a backup of the system that does not run, and the same into
// a database that is empty, beside a stream and an xDS server that have seen more. No secret is in the files.
func TestBackup(t *testing.T) {
	s := start(t, "--no-demo")
	const secret = "the secret of a policy, which has 32 bytes and more"
	call(t, s, "PUT", s.API+"/v1/auth-policies/p",
		`{"spec":{"jwt":{"keys":[{"kid":"one","algorithm":"HS256","secret":"`+secret+`"}]}}}`, 201)
	put(t, s, "kept", "old")
	// How far an order is, is in no backup: it begins anew, though the configuration is the same.
	call(t, s, "PUT", s.API+"/v1/certificate-issuers/away",
		`{"spec":{"directory":"https://127.0.0.1:1/d","terms_agreed":true}}`, 201)
	call(t, s, "PUT", s.API+"/v1/certificates/ordered", `{"spec":{"issuer":"away","names":["ordered.test"]}}`, 201)
	ordering := func() {
		t.Helper()
		eventually(t, func() string {
			at := call(t, s, "GET", s.API+"/v1/certificates/ordered", nil, 200)["status"].(object)
			if x, ok := at["issuance"].(object); !ok || x["problem"] != "unreachable" {
				return fmt.Sprint(at)
			}
			return ""
		})
	}
	ordering()
	revision := head(t, s)
	running := filepath.Join(t.TempDir(), "running")
	run := func(code int, args ...string) string {
		t.Helper()
		cmd := s.CLI(t.Context(), append(args, "--state-dir", s.Dir)...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
			t.Fatalf("%v: %v, want status %d\n%s", args, err, code, out)
		}
		return string(out)
	}
	run(0, "backup", running)
	run(0, "restore", "--replace", running) // nothing has changed but the epoch
	ordering()

	written(t, s)
	if out := run(1, "restore", running); !strings.Contains(out, "--replace lets what it has go") {
		t.Errorf("a used database without --replace: %s", out)
	}
	broken := filepath.Join(t.TempDir(), "broken")
	raw, err := os.ReadFile(running)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, raw[:len(raw)-100], 0o600); err != nil {
		t.Fatal(err)
	}
	run(1, "restore", "--replace", broken)
	served(t, s, "kept", "new 99")
	run(0, "restore", "--check", running)
	served(t, s, "kept", "new 99")

	run(0, "restore", "--replace", running)
	wentBack(t, s, revision)
	written(t, s)

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	stopped := filepath.Join(t.TempDir(), "stopped")
	run(0, "backup", stopped)
	if err := os.RemoveAll(filepath.Join(s.Dir, "postgres")); err != nil {
		t.Fatal(err)
	}
	run(0, "restore", running)
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	wentBack(t, s, revision)
	run(0, "restore", "--replace", stopped) // and forth: more than xds and the stream have of this epoch
	eventually(t, func() string {
		if status, seen, err := answers(s, "new99.example.com"); err != nil || status != 200 {
			return fmt.Sprint(status, seen, err)
		}
		return ""
	})
	agree(t, s)

	key, err := s.SecretKey()
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Token()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{running, stopped} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		for _, x := range []string{secret, key, token} {
			if bytes.Contains(unpacked(t, path), []byte(x)) {
				t.Errorf("%s holds a secret", path)
			}
		}
	}
}

// written is 100 writes more: new routes, and one that there was.
func written(t *testing.T, s *harness.System) {
	t.Helper()
	for i := range 50 {
		call(t, s, "PUT", fmt.Sprintf("%s/v1/routes/new%d", s.API, 50+i), direct(fmt.Sprint("new", 50+i), "new", nil), 201)
		call(t, s, "PUT", s.API+"/v1/routes/kept", direct("kept", fmt.Sprint("new ", 50+i), nil), 200)
	}
	live(t, s, "kept", "new 99")
}

// wentBack waits until what was written after the backup is gone everywhere: Envoy, the stream, and a consumer of it.
func wentBack(t *testing.T, s *harness.System, revision int64) {
	t.Helper()
	eventually(t, func() string {
		if status, seen, err := answers(s, "kept.example.com"); err != nil || status != 200 || seen != "old" {
			return fmt.Sprint(status, seen, err)
		}
		if status, _, err := answers(s, "new99.example.com"); err != nil || status != 404 {
			return fmt.Sprint("a route that the backup does not have answers ", status, err)
		}
		return ""
	})
	if now := head(t, s); now != revision {
		t.Errorf("the head is revision %d, and that of the backup is %d", now, revision)
	}
	table, err := stream.Table(t.Context(), s.JetStream(t))
	if err != nil {
		t.Fatal(err)
	}
	if o := table[resource.Ref{Kind: resource.KindRoute, Name: "new99"}]; o != nil && !o.Deleted {
		t.Errorf("the stream still has a route that the backup does not have: %+v", o)
	}
	agree(t, s)
	put(t, s, "after", fmt.Sprint("after ", revision)) // a write is live, and its revision is a low one
}

func head(t *testing.T, s *harness.System) int64 {
	t.Helper()
	return int64(call(t, s, "GET", s.API+"/v1/status", nil, 200)["revision"].(float64))
}

func unpacked(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // read only
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// answers is what Envoy answers now; an error where it does not.
func answers(s *harness.System, host string) (int, string, error) {
	c := probe.New(s.Proxy)
	defer c.Close()
	a, _, err := c.Get(host, "/")
	return a.Status, a.Body, err
}
