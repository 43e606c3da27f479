package harness

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// JetStream connects to the system's NATS for the time of a test.
func (s *System) JetStream(t testing.TB) jetstream.JetStream {
	t.Helper()
	url, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(fmt.Errorf("connect to NATS: %w", err))
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		t.Fatal(fmt.Errorf("jetstream: %w", err))
	}
	t.Cleanup(nc.Close)
	return js
}
