package security

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// beginEnvoy runs an Envoy with a bootstrap of the test's own, until it is stopped or the test ends.
func beginEnvoy(t *testing.T, bootstrap map[string]any) (stop func()) {
	t.Helper()
	raw, err := json.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	envoy, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(envoy, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr, cmd.Dir = &log, &log, filepath.Dir(path) // where it may write a log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
		if t.Failed() {
			t.Log(log.String())
		}
	})
	t.Cleanup(stop)
	return stop
}
