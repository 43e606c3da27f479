package bus_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/bus"
	"github.com/marchproxy/marchproxy/pkg/natstest"
)

// TestReplicas: a stream is kept once where one server or two are named, and three times where three are.
func TestReplicas(t *testing.T) {
	nc, _ := natstest.Start(t).Connect()
	url := nc.ConnectedUrl()
	for servers, want := range map[string]int{url: 1, url + "," + url: 1, url + "," + url + "," + url: 3} {
		nc, err := nats.Connect(servers)
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		if n := bus.Replicas(t.Context(), js, "MARCHPROXY_CONFIG"); n != want {
			t.Errorf("%s: %d, want %d", servers, n, want)
		}
		nc.Close()
	}
}
