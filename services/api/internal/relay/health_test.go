package relay_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/disktest"
	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/relay"
)

// trouble waits until the relay's trouble is as wanted, and fails after a time.
func (a *api) trouble(within time.Duration, want string) relay.Trouble {
	a.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(within); ; <-tick.C {
		got, bad := a.relay.Trouble()
		if bad == (want != "") && strings.Contains(got.Reason, want) {
			return got
		}
		if time.Now().After(limit) {
			a.t.Fatalf("after %s: %v %+v, want %q", within, bad, got, want)
		}
	}
}

// overflow writes more than a full disk takes; some of it still fits into the stream's last page. Several objects in
// one write would be an atomic batch, which fails without the stream being stuck after it.
func (a *api) overflow() {
	a.t.Helper()
	for k := range 80 {
		a.put(fmt.Sprint("full", k), "one")
	}
}

// TestFullDisk: what is written while NATS's disk is full is stored, and published when there is room; in between
// the disk's own words are known at once. Nobody restarts NATS here, and the stream is not left stuck.
func TestFullDisk(t *testing.T) {
	disk := disktest.New(t, 8<<20)
	a := start(t, natstest.StartIn(t, disk.Dir), pgtest.Database(t))
	a.put("before", "one", "two", "three")
	a.agree()
	if err := disk.Fill(); err != nil {
		t.Fatal(err)
	}
	a.overflow()
	a.trouble(5*time.Second, "NATS cannot write to its disk: no space left on device")
	if a.relay.Published() >= a.w.Revision() {
		t.Errorf("published %d of %d", a.relay.Published(), a.w.Revision())
	}
	if err := disk.Empty(); err != nil {
		t.Fatal(err)
	}
	a.trouble(30*time.Second, "")
	a.agree()
	a.put("after", "four")
	a.agree()
}

// TestFullDiskWithConsumers: a stream that somebody's durable consumer reads is not made anew, which would end it;
// NATS restarted is enough, and the trouble says so.
func TestFullDiskWithConsumers(t *testing.T) {
	disk := disktest.New(t, 8<<20)
	server := natstest.StartIn(t, disk.Dir)
	a := start(t, server, pgtest.Database(t))
	a.put("before", "one")
	a.agree()
	st, err := a.js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "somebody"}); err != nil {
		t.Fatal(err)
	}
	if err := disk.Fill(); err != nil {
		t.Fatal(err)
	}
	a.overflow()
	a.trouble(5*time.Second, "no space left on device")
	if err := disk.Empty(); err != nil {
		t.Fatal(err)
	}
	a.trouble(30*time.Second, "restart NATS")
	server.Stop()
	server.Start()
	a.trouble(30*time.Second, "")
	a.agree()
	if _, err := st.Consumer(t.Context(), "somebody"); err != nil {
		t.Errorf("the consumer: %v", err)
	}
}

// TestAway: a NATS that is away is named after a moment, and forgotten when it is back.
func TestAway(t *testing.T) {
	server := natstest.Start(t)
	a := start(t, server, pgtest.Database(t))
	a.put("before", "one")
	a.agree()
	server.Stop()
	a.put("while", "one")
	a.trouble(5*time.Second, "NATS does not answer")
	server.Start()
	a.trouble(30*time.Second, "")
	a.agree()
}

// TestAwayOfTwo: of two apis on one database one publishes, and both know why nothing is published.
func TestAwayOfTwo(t *testing.T) {
	server := natstest.Start(t)
	url := pgtest.Database(t)
	first := start(t, server, url)
	first.put("before", "one")
	first.agree()
	second := start(t, server, url)
	second.agree()
	server.Stop()
	second.put("while", "one")
	first.trouble(5*time.Second, "NATS does not answer")
	second.trouble(5*time.Second, "NATS does not answer")
	server.Start()
	first.trouble(30*time.Second, "")
	second.trouble(30*time.Second, "")
	first.agree()
}
