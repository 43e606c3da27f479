package status_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// TestStreamIsThere: a watch makes the stream again that a restart of NATS has taken, and otherwise leaves NATS alone:
// an update of the stream at each beat was the dearest thing that an idle system did.
func TestStreamIsThere(t *testing.T) {
	s := natstest.Start(t)
	nc, js := s.Connect()
	var made atomic.Int64
	if _, err := nc.Subscribe("$JS.API.STREAM.*."+status.StreamName, func(m *nats.Msg) {
		if strings.Contains(m.Subject, ".CREATE.") || strings.Contains(m.Subject, ".UPDATE.") {
			made.Add(1)
		}
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- status.Watch(ctx, nc, js, func(status.AgentStatus, bool) {}) }()
	there := func() {
		t.Helper()
		for end := time.Now().Add(6 * status.Heartbeat); ; time.Sleep(50 * time.Millisecond) {
			_, err := js.Stream(t.Context(), status.StreamName)
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	there()
	before := made.Load()
	go func() {
		ended <- status.WatchXds(ctx, nc, js, &reader{views: map[string]*status.View{}, lost: map[string]bool{}})
	}()
	// it begins with that
	for end := time.Now().Add(status.Heartbeat); made.Load() == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the second watch does not look whether the stream is there")
		}
	}
	before = made.Load()
	time.Sleep(2*status.Heartbeat + time.Second) // in which nothing may happen, so there is nothing to wait for
	if n := made.Load() - before; n > 0 {
		t.Errorf("the stream is made %d times more", n)
	}
	s.Stop()
	s.Start()
	there()
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
