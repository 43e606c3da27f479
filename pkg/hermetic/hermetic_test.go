package hermetic

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEnvironment starts this program among the settings of somebody else.
func TestEnvironment(t *testing.T) {
	if os.Getenv("MARCHPROXY_CONFIGURATIONS") == "print" {
		t.Log("\n" + strings.Join(os.Environ(), "\n") + "\n")
		return
	}
	gone := []string{
		"PGHOST=elsewhere", "PGSERVICE=none", "DATABASE_URL=postgres://elsewhere", "DATABASE_URL_FILE=/none",
		"NATS_URL=nats://elsewhere",
		"MARCHPROXY_API=http://elsewhere", "MARCHPROXY_TOKEN=secret", "ENVOY_PATH=/none", "LANG=tlh_XX.UTF-8",
		"LC_ALL=tlh_XX.UTF-8",
		"NO_COLOR=1", "NO_PROXY=elsewhere", "LOGLEVEL=loud",
	}
	stay := []string{
		"GOPATH=/go", "PIP_CERT=/cert", "https_proxy=http://proxy", "REQUESTS_CA_BUNDLE=/bundle",
		"MARCHPROXY_CACHE=/cache",
	}
	made := []string{"LC_ALL=C.UTF-8", "no_proxy=" + direct, "NO_PROXY=" + direct}
	if os.Geteuid() == 0 {
		closed := filepath.Join(t.TempDir(), "closed")
		if err := os.Mkdir(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		gone = append(gone, "TMPDIR="+closed)
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^TestEnvironment$")
	cmd.Env = slices.Concat([]string{"MARCHPROXY_CONFIGURATIONS=print"}, gone, stay)
	raw, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	has := func(setting string) bool { return strings.Contains(string(raw), setting+"\n") }
	for _, s := range gone {
		if has(s) {
			t.Errorf("%s reaches the tests", s)
		}
	}
	for _, s := range append(stay, made...) {
		if !has(s) {
			t.Errorf("%s does not reach the tests", s)
		}
	}
}
