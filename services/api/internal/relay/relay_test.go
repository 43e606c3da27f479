package relay_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/disktest"
	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/relay"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

func TestMain(m *testing.M) {
	os.Exit(disktest.Main(func() int { return pgtest.Main(m) }))
}

// patience is how long a relay may take.
const patience = 30 * time.Second

// api is a database's store, its writer and its relay: what one api has of them.
type api struct {
	t     *testing.T
	url   string
	nats  *natstest.Server
	nc    *nats.Conn
	js    jetstream.JetStream
	store *store.Store
	w     *writer.Writer
	relay *relay.Relay
	stop  func()
}

// start runs one on a database.
func start(t *testing.T, server *natstest.Server, url string) *api {
	t.Helper()
	a := &api{t: t, url: url, nats: server}
	a.nc, a.js = server.Connect()
	box, err := seal.New("a secret of the test's own")
	if err != nil {
		t.Fatal(err)
	}
	if a.store, err = store.Open(t.Context(), url, box); err != nil {
		t.Fatal(err)
	}
	a.relay = relay.New(a.store, a.js, zap.New(core(server)))
	if a.w, err = writer.New(t.Context(), a.store, box, "", zap.NewNop(), a.relay.Committed); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.relay.Run(ctx) }()
	stopped := false
	a.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			a.store.Close()
		}
	}
	t.Cleanup(a.stop)
	return a
}

// put makes one revision with services of these names.
func (a *api) put(body string, names ...string) {
	a.t.Helper()
	_, err := a.w.Write(a.t.Context(), writer.Meta{
		Who: auth.Identity{Name: "test", Role: auth.Admin},
	}, func(*config.State) (writer.Plan, error) {
		var p writer.Plan
		for _, n := range names {
			spec := &configv1.Service{Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: 80, Zone: body}}}
			p.Upserts = append(p.Upserts, writer.Desired{
				Ref: resource.Ref{Kind: resource.KindService, Name: n}, Spec: spec,
				Path: "$", SpecPath: "$",
			})
		}
		return p, nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *api) remove(name string) {
	a.t.Helper()
	_, err := a.w.Write(a.t.Context(), writer.Meta{
		Who: auth.Identity{Name: "test", Role: auth.Admin},
	}, func(*config.State) (writer.Plan, error) {
		return writer.Plan{Deletes: []resource.Ref{{Kind: resource.KindService, Name: name}}}, nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// agree waits until the stream is what the database is: its last commit the head, and its table the state.
func (a *api) agree() store.Head {
	a.t.Helper()
	sub, err := a.nc.SubscribeSync(stream.RevisionSubject)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for limit := time.Now().Add(patience); ; {
		head, objects, err := a.store.Snapshot(a.t.Context())
		if err != nil {
			a.t.Fatal(err)
		}
		amiss := a.differs(head, objects)
		if amiss == "" {
			return head
		}
		if time.Now().After(limit) {
			a.t.Fatal(amiss)
		}
		// A commit may say that something has changed; and what is repaired without one shows soon.
		if _, err := sub.NextMsg(100 * time.Millisecond); err != nil && a.t.Context().Err() != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *api) differs(head store.Head, objects []*resource.Object) string {
	c, _, found, err := stream.LastCommit(a.t.Context(), a.js)
	if err != nil || !found {
		return fmt.Sprintf("no commit in the stream: %v", err)
	}
	if c.Epoch != head.Epoch || c.Revision != head.Revision || !maps.Equal(c.State, head.State) {
		return fmt.Sprintf("the stream's commit is %d of %s, the head %d of %s", c.Revision, c.Epoch,
			head.Revision, head.Epoch)
	}
	table, err := stream.Table(a.t.Context(), a.js)
	if err != nil {
		return err.Error()
	}
	maps.DeleteFunc(table, func(_ resource.Ref, o *resource.Object) bool { return o.Deleted })
	if len(table) != len(objects) {
		return fmt.Sprintf("the stream has %d objects, the database %d", len(table), len(objects))
	}
	for _, o := range objects {
		if got := table[o.Ref()]; got == nil || string(got.Payload()) != string(o.Payload()) {
			return fmt.Sprintf("the stream has another %s", o.Ref())
		}
	}
	return ""
}

// histories are what the relays of a server's tests have logged: the stream keeps the last commit alone.
var histories sync.Map

func history(server *natstest.Server) *observer.ObservedLogs { return core(server).logs }

type logged struct {
	zapcore.Core
	logs *observer.ObservedLogs
}

func core(server *natstest.Server) logged {
	c, logs := observer.New(zap.DebugLevel)
	was, _ := histories.LoadOrStore(server, logged{c, logs})
	return was.(logged) //nolint:forcetypeassert // nothing else is stored
}

// once fails where revisions were left out, published twice or out of order. The first publication is a repair.
func (a *api) once() {
	a.t.Helper()
	last, said := int64(0), ""
	for _, e := range history(a.nats).All() {
		f := e.ContextMap()
		if after, ok := f["after"].(int64); ok && e.Message == "going on" {
			last = max(last, min(last+1, after)) // the answer to the last one was lost
		}
		at, ok := f["revision"].(int64)
		if e.Message != "published" || !ok {
			continue
		}
		said += fmt.Sprintf(" %d by %s", at, f["actor"])
		if last > 0 && (at != last+1 || f["actor"] == "relay") {
			a.t.Fatalf("published were%s", said)
		}
		last = at
	}
	if head := a.head(); last != head.Revision {
		a.t.Fatalf("the last that was published is %d of %d:%s", last, head.Revision, said)
	}
}

func (a *api) head() store.Head {
	a.t.Helper()
	h, err := a.store.Head(a.t.Context())
	a.must(err)
	return h
}

// last is the stream's commit.
func (a *api) last() resource.Commit {
	a.t.Helper()
	c, _, _, err := stream.LastCommit(a.t.Context(), a.js)
	a.must(err)
	return c
}

func TestPublishes(t *testing.T) {
	a := start(t, natstest.Start(t), pgtest.Database(t))
	a.put("one", "a", "b")
	a.remove("b")
	a.put("two", "a")
	a.agree()
	a.once()
}

// TestRestarts: a relay that ends between publishing and whatever comes after publishes nothing twice.
func TestRestarts(t *testing.T) {
	server, url := natstest.Start(t), pgtest.Database(t)
	for i := range 3 {
		a := start(t, server, url)
		a.put(fmt.Sprint(i), "a")
		if i == 1 {
			a.agree()
		} // otherwise it is stopped in the middle of it
		a.stop()
	}
	a := start(t, server, url)
	a.agree()
	a.once()
}

// TestEndsBetween: a relay that ends after an object and before its commit leaves the commit to the next one,
// which publishes it as its author's.
func TestEndsBetween(t *testing.T) {
	server, url := natstest.Start(t), pgtest.Database(t)
	a := start(t, server, url)
	a.put("one", "a")
	a.agree()
	before := a.message(stream.RevisionSubject)
	a.put("two", "a")
	head := a.agree()
	a.stop()
	for _, m := range []*jetstream.RawStreamMsg{before, a.message(stream.ResourcePrefix + "service.a")} { // as it was then
		_, err := a.js.Publish(t.Context(), m.Subject, m.Data)
		a.must(err)
	}
	history(server).TakeAll()
	a = start(t, server, url)
	a.agree()
	a.once()
	if last := a.last(); last.Revision != head.Revision || last.Actor != "test" || len(last.Changes) != 1 {
		t.Errorf("the last commit is %+v", last)
	}
}

func (a *api) message(subject string) *jetstream.RawStreamMsg {
	a.t.Helper()
	m, err := a.stream().GetLastMsgForSubject(a.t.Context(), subject)
	a.must(err)
	return m
}

// TestLeaderChange: when the leader loses its database connection another api goes on, or itself; each revision
// is published once, whoever wrote it.
func TestLeaderChange(t *testing.T) {
	server, url := natstest.Start(t), pgtest.Database(t)
	apis := []*api{start(t, server, url), start(t, server, url)}
	for i := range 6 {
		apis[i%2].put(fmt.Sprint(i), "a", "b")
		apis[i%2].agree()
		pgtest.Exec(t, url, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> `+
			`pg_backend_pid()`)
	}
	apis[0].agree()
	apis[0].once()
	apis[0].stop()
	apis[1].put("last", "a")
	apis[1].agree()
	apis[1].once()
}

// TestNATSAway: what is written while NATS is away is published when it is back.
func TestNATSAway(t *testing.T) {
	a := start(t, natstest.Start(t), pgtest.Database(t))
	a.put("before", "a")
	a.agree()
	a.nats.Stop()
	for i := range 5 {
		a.put(fmt.Sprint("while away ", i), "a", "b")
	}
	a.nats.Start()
	a.agree()
	a.once()
}

// TestManyBehind: beyond some revisions only the difference is published.
func TestManyBehind(t *testing.T) {
	server, url := natstest.Start(t), pgtest.Database(t)
	a := start(t, server, url)
	a.put("before", "a", "gone")
	a.agree()
	a.nats.Stop()
	a.remove("gone")
	for i := range 1100 {
		a.put(fmt.Sprint(i), "b")
	}
	a.nats.Start()
	head := a.agree()
	if last := a.last(); last.Actor != "relay" || last.Revision != head.Revision {
		t.Errorf("the last commit is %+v", last)
	}
}

func (a *api) stream() jetstream.Stream {
	a.t.Helper()
	s, err := a.js.Stream(a.t.Context(), stream.Name)
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *api) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}
