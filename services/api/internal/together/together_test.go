package together

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestBeside: the program beside the api is told to end with it, which is no error; when it ends by itself it is one,
// whatever its status.
func TestBeside(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, text := range map[string]string{"well": "exit 0", "ill": "exit 1"} {
		if err := beside(t.Context(), script(name, text)); err == nil {
			t.Errorf("%s: it ended by itself, and that is no error", name)
		}
	}
	ready, ended := filepath.Join(dir, "ready"), filepath.Join(dir, "ended")
	serves := script("serves", "trap 'echo > "+ended+"; exit 3' TERM; echo > "+ready+"; while :; do sleep 0.01; done")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- beside(ctx, serves) }()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // looks for a file of another process
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("it has not begun after 10 s")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("it was told to end, and that is said to be %v", err)
	}
	if _, err := os.Stat(ended); err != nil {
		t.Errorf("it had no time to end: %v", err)
	}
}
