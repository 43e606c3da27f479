package dev

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestEnd: a child that does not end when it is asked to is waited for, and killed when it had its time; both are said.
func TestEnd(t *testing.T) {
	var mu sync.Mutex
	var said []string
	say := func(line string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, line)
	}
	running := make(chan struct{}, 1)
	c := &child{name: "deaf", grace: patience + time.Second, make: func() *exec.Cmd {
		return exec.Command("/bin/sh", "-c", `trap "" TERM; echo deaf; while :; do sleep 0.1; done`)
	}}
	ctx, stop := context.WithCancel(t.Context())
	logs := t.TempDir()
	c.start(ctx, logs, say, func() {
		select {
		case running <- struct{}{}:
		default:
		}
	})
	<-running
	limit := time.Now().Add(30 * time.Second)
	for ; !strings.Contains(string(c.supervisor.Log.Tail()), "deaf"); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the child does not begin")
		}
	}
	begun := time.Now()
	stop()
	<-c.done
	if took := time.Since(begun); took < c.grace {
		t.Errorf("it had %v, not %v", took, c.grace)
	}
	want := []string{
		"stopping: waiting for deaf to end; it is killed in 1s",
		"stopping: deaf did not end within 4s and is killed",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said %q", said)
	}
}
