package server

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMemoryLimit: Envoy is told less than its container may use, and nothing where there is no limit.
func TestMemoryLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory.max")
	if got := memoryLimit(path); got != 0 {
		t.Errorf("without a control group %d", got)
	}
	for text, want := range map[string]uint64{"1073741820\n": 966367638, "max\n": 0, "": 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := memoryLimit(path); got != want {
			t.Errorf("memory.max %q: %d, want %d", text, got, want)
		}
	}
}
