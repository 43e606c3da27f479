package tail_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/accesslog"
	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/services/api/internal/tail"
)

// TestHub: what is asked for is said as soon as it changes, and again; entries come to those who asked for them; who does
// not read loses entries, which are counted, and holds up nobody; and the end is said when the last one has left.
func TestHub(t *testing.T) {
	server := natstest.Start(t)
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	said, err := nc.SubscribeSync(accesslog.WatchSubject)
	if err != nil {
		t.Fatal(err)
	}
	hear := func() (w accesslog.Watch) {
		t.Helper()
		m, err := said.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Data, &w); err != nil {
			t.Fatal(err)
		}
		return w
	}
	hub := tail.New(nc, "one", func() int { return 4 }, zap.NewNop())
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(ctx) }()
	defer func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	first, leave := context.WithCancel(t.Context())
	failures := hub.Watch(first, accesslog.Filter{Status: "5xx"})
	if w := hear(); w.ID != "one" || len(w.Filters) != 1 || w.Filters[0].Status != "5xx" || w.Rate != 250 {
		t.Errorf("%+v", w)
	}
	hear() // a second later, unasked
	second, leaveToo := context.WithCancel(t.Context())
	slow := hub.Watch(second, accesslog.Filter{})
	for len(hear().Filters) != 2 {
	}
	tell := func(entries ...accesslog.Entry) {
		t.Helper()
		raw, err := json.Marshal(accesslog.Batch{Proxy: "p", Gateway: "g", Share: 0.5, Entries: entries})
		if err == nil {
			err = nc.Publish(accesslog.EntriesPrefix+"agent", raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tell(accesslog.Entry{Status: 200, Path: "/a"}, accesslog.Entry{Status: 503, Path: "/b"})
	b := <-failures.C
	if len(b.Entries) != 1 || b.Entries[0].Path != "/b" || b.Entries[0].Proxy != "p" || b.Entries[0].Gateway != "g" {
		t.Errorf("%+v", b)
	}
	for range 200 {
		tell(accesslog.Entry{Status: 200})
	}
	tell(accesslog.Entry{Status: 500})
	<-failures.C // all have come: messages of one sender keep their order
	told, dropped := slow.Reports()
	if len(told) != 1 || told[0].Share != 0.5 || dropped == 0 || dropped >= 202 {
		t.Errorf("%+v, %d dropped", told, dropped)
	}
	if _, dropped := failures.Reports(); dropped != 0 {
		t.Errorf("%d dropped of who reads", dropped)
	}
	leave()
	leaveToo()
	for len(hear().Filters) != 0 {
	}
}
