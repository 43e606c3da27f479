package relay_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
)

// damages are what may befall a stream; after each it becomes what the database is.
var damages = map[string]func(a *api){
	"purged":  func(a *api) { a.must(a.stream().Purge(a.t.Context())) },
	"deleted": func(a *api) { a.must(a.js.DeleteStream(a.t.Context(), stream.Name)) },
	"commits purged": func(a *api) {
		a.must(a.stream().Purge(a.t.Context(), jetstream.WithPurgeSubject(stream.RevisionSubject)))
	},
	"message lost": func(a *api) {
		m, err := a.stream().GetLastMsgForSubject(a.t.Context(),
			stream.Subject(resource.Ref{Kind: resource.KindService, Name: "a"}))
		a.must(err)
		a.must(a.stream().DeleteMsg(a.t.Context(), m.Sequence))
	},
	"last commit lost": func(a *api) {
		m, err := a.stream().GetLastMsgForSubject(a.t.Context(), stream.RevisionSubject)
		a.must(err)
		a.must(a.stream().DeleteMsg(a.t.Context(), m.Sequence))
	},
	"tombstone lost": func(a *api) {
		a.must(a.stream().Purge(a.t.Context(),
			jetstream.WithPurgeSubject(stream.Subject(resource.Ref{Kind: resource.KindService, Name: "gone"}))))
	},
	"forged object": func(a *api) {
		_, err := a.js.Publish(a.t.Context(), stream.ResourcePrefix+"service.a",
			[]byte(`{"kind":"Service","name":"a","revision":7,"spec":{}}`))
		a.must(err)
	},
	"forged addition": func(a *api) {
		_, err := a.js.Publish(a.t.Context(), stream.ResourcePrefix+"service.evil",
			[]byte(`{"kind":"Service","name":"evil","revision":7,"spec":{}}`))
		a.must(err)
	},
	"rubbish": func(a *api) {
		for _, subject := range []string{stream.ResourcePrefix + "service.a", stream.RevisionSubject} {
			_, err := a.js.Publish(a.t.Context(), subject, []byte("\x00rubbish"))
			a.must(err)
		}
	},
}

// TestDamaged: also what only the number of messages shows, or a look at every one of them.
func TestDamaged(t *testing.T) {
	for name, damage := range damages {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, relay running %v", name, running), func(t *testing.T) {
				t.Parallel()
				server, url := natstest.Start(t), pgtest.Database(t)
				a := start(t, server, url)
				a.put("one", "a", "b", "gone")
				a.put("two", "a")
				a.remove("gone")
				before := a.agree()
				if running {
					if name == "message lost" { // the stream's end does not show it
						a.looked()
					}
					damage(a)
				} else {
					a.stop()
					damage(a)
					a = start(t, server, url)
				}
				if after := a.agree(); after.Epoch != before.Epoch {
					t.Error("damage to the stream has begun a new life of the database")
				}
				a.put("onwards", "b")
				a.agree()
			})
		}
	}
}

// looked waits until the relay has looked at the quiet stream twice, and knows how many messages it holds.
func (a *api) looked() {
	a.t.Helper()
	sub, err := a.nc.SubscribeSync("$JS.API.STREAM.INFO." + stream.Name)
	a.must(err)
	defer func() { _ = sub.Unsubscribe() }()
	for range 6 { // at most two questions a look
		if _, err := sub.NextMsg(patience); err != nil {
			a.t.Fatal(err)
		}
	}
}

// TestOlderStream: the stream's disk is set back.
func TestOlderStream(t *testing.T) {
	server, url := natstest.Start(t), pgtest.Database(t)
	a := start(t, server, url)
	a.put("old", "a", "b")
	a.agree()
	server.Stop()
	copied := server.Backup()
	server.Start()
	a.put("new", "a", "c")
	a.remove("b")
	before := a.agree()
	server.Stop()
	server.Restore(copied)
	server.Start()
	if after := a.agree(); after.Epoch != before.Epoch {
		t.Error("an older stream has begun a new life of the database")
	}
}
