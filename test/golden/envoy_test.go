package golden

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/test/harness"
)

// validate has Envoy read a bootstrap, and returns what it said and whether it took it.
func validate(t testing.TB, raw []byte) (string, bool) {
	t.Helper()
	bin, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "--mode", "validate", "-c", path, "--log-level", "error")
	cmd.Dir = filepath.Dir(path) // the access log's file is there
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

type object = map[string]any

// base is our own bootstrap, to put static resources into.
func base(t testing.TB) object {
	t.Helper()
	raw, err := bootstrap.Render(bootstrap.Config{
		XDSServer: "127.0.0.1:18000", AdminAddr: "127.0.0.1:9901",
		APIKey: "key",
	})
	if err != nil {
		t.Fatal(err)
	}
	var b object
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
