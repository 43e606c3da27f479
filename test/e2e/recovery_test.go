package e2e

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/stream"
)

// TestStreamLost: a stream that was purged or deleted is made again from the database, and nobody who is
// served notices.
func TestStreamLost(t *testing.T) {
	s := start(t, "--no-demo")
	js := s.JetStream(t)
	for i := range 20 {
		put(t, s, fmt.Sprintf("r%d", i), "one")
	}
	st, err := js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	agree(t, s)
	put(t, s, "r1", "two")
	if err := js.DeleteStream(t.Context(), stream.Name); err != nil {
		t.Fatal(err)
	}
	agree(t, s)
	put(t, s, "r1", "three")
	for i := range 20 {
		if status, _ := proxied(t, s, fmt.Sprintf("r%d.example.com", i), "/"); status != 200 {
			t.Fatalf("r%d: %d", i, status)
		}
	}
	agree(t, s)
}

// TestAlone: xds restarts with everything else stopped, serves what it had, and a restarted Envoy gets it.
func TestAlone(t *testing.T) {
	s := start(t, "--no-demo")
	put(t, s, "kept", "kept")
	for _, p := range []string{"api", "nats", "postgres"} {
		pid := s.Pid(p)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // runs before the system is stopped
	}
	for _, p := range []string{"xds", "envoy"} {
		if err := syscall.Kill(s.Pid(p), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() string {
		if got, err := try(s, "kept.example.com"); err != nil || got != "kept" {
			return fmt.Sprintf("the proxy answers %q %v", got, err)
		}
		return ""
	})
}
