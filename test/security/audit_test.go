package security

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/test/harness"
)

// TestAuditChain: two apis write at once, one chain comes of it, and every way to look at it says that it fits: the
// api, the doctor, and a file without an api. Whatever is changed in the database or the file is found, and named.
func TestAuditChain(t *testing.T) {
	s := start(t)
	second, err := s.StartAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
	}()
	var wg sync.WaitGroup
	const writes = 20
	for i, url := range []string{s.API, second.URL} {
		wg.Go(func() {
			for n := range writes {
				name := fmt.Sprintf("r%d-%d", i, n)
				put(t, s.System, url+"/v1/routes/"+name,
					fmt.Sprintf(`{"spec":{"hosts":["%s.test"],"direct_response":{"status":200}}}`, name))
				if n%5 == 0 {
					put(t, s.System, url+"/v1/tokens", `{"name":"`+name+`","role":"viewer"}`)
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	whole := audited(s, 0, "audit", "verify")
	if !whole.OK || whole.Records < 2*writes+8 || whole.Adopted != 0 || whole.Unproven != 0 {
		t.Errorf("%+v", whole)
	}
	file := filepath.Join(t.TempDir(), "audit.ndjson")
	out, err := s.CLI(t.Context(), "audit", "export").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := audited(s, 0, "audit", "verify", file, "--head", whole.Last.Hash); got.Last != whole.Last ||
		got.Records != whole.Records || got.Found == nil || *got.Found != whole.Last {
		t.Errorf("the file: %+v, want %+v", got, whole)
	}
	python := exec.CommandContext(t.Context(), "python3", "-c", documented(t))
	python.Stdin = bytes.NewReader(out)
	if says, err := python.CombinedOutput(); err != nil {
		t.Errorf("as docs/operations.md verifies it: %v\n%s", err, says)
	}
	var status struct{ Audit api.AuditPoint }
	if err := json.Unmarshal([]byte(run(s, 0, "status", "-o", "json")), &status); err != nil ||
		status.Audit != whole.Last {
		t.Errorf("the status has %+v %v, want %+v", status.Audit, err, whole.Last)
	}
	if says := run(s, 0, "doctor"); !strings.Contains(says, fmt.Sprintf("audit     %d records fit", whole.Records)) {
		t.Errorf("the doctor says:\n%s", says)
	}

	// What was noted is found later; what never was is not.
	s.must("PUT", "/v1/routes/later", `{"spec":{"hosts":["later.test"],"direct_response":{"status":200}}}`, 201)
	if got := audited(s, 0, "audit", "verify", "--head", whole.Last.Hash); got.Found == nil || *got.Found != whole.Last ||
		got.Records != whole.Records+1 {
		t.Errorf("%+v", got)
	}
	audited(s, 2, "audit", "verify", "--head", strings.Repeat("0", 64))
	audited(s, 2, "audit", "verify", file, "--head", strings.Repeat("0", 64))

	// Somebody has the file.
	for what, edit := range map[string]func([]byte) []byte{
		"a changed name": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"name":"r1-7"`),
				[]byte(`"name":"r1-8"`), 1)
		},
		"a lost end": func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] },
		"a lost line": func(b []byte) []byte {
			lines := bytes.SplitAfter(b, []byte("\n"))
			return bytes.Join(append(append([][]byte{}, lines[:9]...), lines[10:]...), nil)
		},
	} {
		other := filepath.Join(t.TempDir(), "other.ndjson")
		changed := edit(out)
		if bytes.Equal(changed, out) {
			t.Fatalf("%s: nothing is changed in\n%s", what, out)
		}
		if err := os.WriteFile(other, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := audited(s, 2, "audit", "verify", other); got.Broken == nil {
			t.Errorf("%s: %+v", what, got)
		}
	}

	// Somebody has the database.
	f, err := s.Forcer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close(t.Context()) }() // of the test alone
	entry := s.must("GET", "/v1/audit?object=r0-3", nil, 200)["items"].([]any)[0].(map[string]any)
	revision := entry["revision"].(float64)
	if err := f.Exec(t.Context(), `UPDATE revisions SET actor = 'somebody-else' WHERE revision = $1`,
		int64(revision)); err != nil {
		t.Fatal(err)
	}
	got := audited(s, 2, "audit", "verify")
	if got.OK || got.Broken == nil || got.Broken.Revision != int64(revision) {
		t.Errorf("%+v, want revision %v", got.Broken, revision)
	}
	if says := run(s, 2, "doctor"); !strings.Contains(says,
		fmt.Sprintf("the audit was changed: record %d, revision %.0f of ", got.Broken.N, revision)) {
		t.Errorf("the doctor says:\n%s", says)
	}
	if says := run(s, 2, "audit", "export"); !strings.Contains(says, "somebody-else") {
		t.Error("an export that does not fit is not whole")
	}
	if err := f.Exec(t.Context(), `UPDATE revisions SET actor = $2 WHERE revision = $1`, int64(revision),
		entry["actor"]); err != nil {
		t.Fatal(err)
	}
	audited(s, 0, "audit", "verify")
	// An api of a version before writes, which knows no chain.
	if _, err := f.Put(t.Context(), "Route", "forced",
		`{"hosts":["forced.test"],"direct_response":{"status":200}}`); err != nil {
		t.Fatal(err)
	}
	if got := audited(s, 0, "audit", "verify"); got.Unchained != 1 {
		t.Errorf("%+v", got)
	}
	s.must("PUT", "/v1/routes/later", `{"spec":{"hosts":["later.test"],"direct_response":{"status":204}}}`, 200)
	if got := audited(s, 0, "audit", "verify"); got.Unchained != 0 || got.Adopted != 1 || got.AdoptedAt == "" {
		t.Errorf("%+v", got)
	}
}

// documented is the program of docs/operations.md that verifies an export.
func documented(t *testing.T) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, program, found := strings.Cut(string(raw), "    import hashlib, json, sys\n")
	program, _, ends := strings.Cut(program, "\n\n")
	if !found || !ends {
		t.Fatal("docs/operations.md has no such program any more")
	}
	return "import hashlib, json, sys\n" + strings.ReplaceAll(program, "\n    ", "\n")[4:]
}

// put writes, beside others that do.
func put(t *testing.T, s *harness.System, url, body string) {
	method := "PUT"
	if strings.HasSuffix(url, "/tokens") {
		method = "POST"
	}
	if status, raw, err := s.Call(t.Context(), method, url, body); err != nil || status != 201 {
		t.Errorf("%s: %d %s %v", url, status, raw, err)
	}
}

// run calls the command line, which must end with a status, and returns what it says.
func run(s system, code int, args ...string) string {
	s.Helper()
	out, err := s.CLI(s.Context(), args...).CombinedOutput()
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		s.Fatal(err)
	}
	if got != code {
		s.Fatalf("%v: exit status %d, want %d\n%s", args, got, code, out)
	}
	return string(out)
}

// audited is what audit verify says.
func audited(s system, code int, args ...string) (v api.AuditVerification) {
	s.Helper()
	says := run(s, code, append(args, "-o", "json")...)
	if err := json.NewDecoder(strings.NewReader(says)).Decode(&v); err != nil {
		s.Fatalf("%v: %v\n%s", args, err, says)
	}
	return v
}
