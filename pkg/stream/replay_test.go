package stream_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nats-io/nats.go"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// TestRandomTransactions: whatever is published, a consumer's table is at every update the state of that
// update's revision: never an older one, never half a transaction.
func TestRandomTransactions(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	r := rand.New(rand.NewPCG(1, 2))
	consumers := []*consumer{
		follow(t, s, m, stream.Options{}, nil),
		follow(t, s, m, stream.Options{Kinds: []string{resource.KindService}}, nil),
		follow(t, s, m, stream.Options{Kinds: []string{resource.KindRoute, resource.KindCertificate}}, nil),
		follow(t, s, m, stream.Options{Kinds: []string{resource.KindService}, Apart: "one"}, nil),
		follow(t, s, m, stream.Options{Kinds: []string{resource.KindRoute, resource.KindCertificate}, Apart: "two"}, nil),
	}
	for i := range 90 {
		m.publish(m.random(r))
		if i%30 == 10 { // one that joins in the middle
			consumers = append(consumers, follow(t, s, m, stream.Options{}, nil),
				follow(t, s, m, stream.Options{Apart: fmt.Sprint("late-", i)}, nil))
		}
	}
	for _, c := range consumers {
		c.until(m.rev)
	}
}

// TestLate: a consumer that starts after everything else is handed the last state, and nothing before it.
func TestLate(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	ref := resource.Ref{Kind: resource.KindService, Name: "gone"}
	m.put(ref.Kind, ref.Name, "x")
	for i := range 20 {
		m.put(resource.KindService, "a", fmt.Sprint(i))
	}
	m.publish(m.change(nil, ref))
	c := follow(t, s, m, stream.Options{}, nil)
	if u := c.next(); u.Commit.Revision != m.rev || len(u.Changed) != 1 {
		t.Errorf("the first update is revision %d of %d and changes %d", u.Commit.Revision, m.rev, len(u.Changed))
	}
}

// TestRestart: a consumer that kept its state is handed what differs, deletions included.
func TestRestart(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	gone := resource.Ref{Kind: resource.KindService, Name: "gone"}
	m.publish(m.change(map[resource.Ref]string{
		gone: "x", {Kind: resource.KindService, Name: "stays"}: "x",
		{Kind: resource.KindRoute, Name: "changes"}: "x",
	}))
	first := follow(t, s, m, stream.Options{}, nil)
	had := first.until(m.rev)
	first.stop()
	m.publish(m.change(map[resource.Ref]string{
		{Kind: resource.KindRoute, Name: "changes"}: "y",
		{Kind: resource.KindRoute, Name: "new"}:     "y",
	}, gone))
	again := follow(t, s, m, stream.Options{Initial: had.Changed, InitialCommit: had.Commit}, nil)
	u := again.next()
	var got []string
	for _, o := range u.Changed {
		got = append(got, fmt.Sprintf("%s deleted=%t", o.Ref(), o.Deleted))
	}
	if want := "[Route/changes deleted=false Route/new deleted=false Service/gone deleted=true]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, not %v", got, want)
	}
}

// TestBehind: a consumer that is stuck while messages that it has not seen are dropped from the stream
// ends with the last state all the same.
func TestBehind(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.publish(m.change(services(300, "begin")))
	stuck, free := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(stuck); <-free })
	c := follow(t, s, m, stream.Options{}, once)
	<-stuck
	for i := range 20 { // 6,000 messages: more than the client fetches ahead, and more of each than are kept
		m.publish(m.change(services(300, fmt.Sprint(i))))
	}
	m.put(resource.KindRoute, "last", "x")
	close(free)
	c.until(m.rev)
}

// TestHalf: the resources of a transaction whose commit is missing are not handed over.
func TestHalf(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.put(resource.KindService, "a", "x")
	c := follow(t, s, m, stream.Options{}, nil)
	c.until(1)
	half, err := js.Publish(t.Context(), stream.Subject(resource.Ref{Kind: resource.KindService, Name: "a"}),
		object(t, resource.KindService, "a", "half", 2).Payload())
	if err != nil {
		t.Fatal(err)
	}
	m.seq = half.Sequence
	late := follow(t, s, m, stream.Options{}, nil)
	// The writer comes back and says all of it.
	m.publish(m.change(map[resource.Ref]string{
		{Kind: resource.KindService, Name: "a"}: "whole",
		{Kind: resource.KindService, Name: "b"}: "whole",
	}))
	for _, x := range []*consumer{c, late} {
		if u := x.next(); u.Commit.Revision != m.rev {
			t.Errorf("revision %d instead of %d", u.Commit.Revision, m.rev)
		}
	}
}

// TestForeign: messages that are not ours, or damaged, are borne.
func TestForeign(t *testing.T) {
	s := natstest.Start(t)
	nc, js := s.Connect()
	m := newModel(t, js)
	m.put(resource.KindService, "a", "x")
	c := follow(t, s, m, stream.Options{}, nil)
	c.until(1)
	for subject, data := range map[string]string{
		stream.ResourcePrefix + "service.a":     `{"kind":"Service","name":"b","spec":{}}`,
		stream.ResourcePrefix + "service.c":     `{`,
		stream.ResourcePrefix + "service.d":     `{"kind":"Nonsense","name":"d","spec":{}}`,
		stream.ResourcePrefix + "service.e":     `{"kind":"Nonsense","name":"e","deleted":true}`,
		stream.ResourcePrefix + "service.f":     `{"kind":"Service","name":"f","spec":{"endpoints":"no"}}`,
		stream.ResourcePrefix + "nonsense.g":    `{"kind":"Service","name":"g","spec":{}}`,
		stream.RevisionSubject:                  `[`,
		stream.SubjectPrefix + "something.else": `x`,
	} {
		if err := nc.Publish(subject, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	c.log.wait(t, "a commit cannot be read")
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Table(t.Context(), js); err != nil {
		t.Error(err)
	}
	m.seq = m.last(js)
	m.put(resource.KindService, "b", "x")
	c.until(m.rev)
}

// TestDuplicates: what a repair says again is no update, and neither is a commit that stands twice.
func TestDuplicates(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.put(resource.KindService, "a", "x")
	m.put(resource.KindRoute, "b", "x")
	c := follow(t, s, m, stream.Options{}, nil)
	c.until(m.rev)
	m.repair(js)
	m.publish(nil, m.commit(nil))
	m.put(resource.KindService, "a", "y")
	if u := c.next(); u.Commit.Revision != m.rev || len(u.Changed) != 1 {
		t.Errorf("the next update is revision %d and changes %d", u.Commit.Revision, len(u.Changed))
	}
}

// TestWrongHash: a commit that does not fit what is there is not believed, and the stream is replayed.
func TestWrongHash(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.put(resource.KindService, "a", "x")
	c := follow(t, s, m, stream.Options{}, nil)
	c.until(1)
	objects, commit := m.change(map[resource.Ref]string{{Kind: resource.KindService, Name: "a"}: "y"})
	right := commit.State
	commit.State = maps.Clone(right)
	commit.State[resource.KindService] = resource.KindState{Count: 1, Hash: resource.Hash{1, 2, 3, 4}.String()}
	m.publish(objects, commit)
	c.log.wait(t, "hash has stayed unequal")
	c.quiet()
	commit.State = right
	m.publish(nil, commit)
	if u := c.next(); u.Commit.Revision != 2 || len(u.Changed) != 1 {
		t.Errorf("revision %d changes %d", u.Commit.Revision, len(u.Changed))
	}
}

// TestConsumerFails: an update that cannot be taken ends the replay with the consumer's own error.
func TestConsumerFails(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.put(resource.KindService, "a", "x")
	full := errors.New("the disk is full")
	err := stream.Replay(t.Context(), js, stream.Options{Log: zap.NewNop(), OnUpdate: func(resource.Update) error {
		return full
	}})
	if !errors.Is(err, full) {
		t.Error(err)
	}
}

// TestNoServer: a replay waits for NATS and for the stream.
func TestNoServer(t *testing.T) {
	s := natstest.Start(t)
	nc, js := s.Connect()
	m := newModel(t, js)
	if err := js.DeleteStream(t.Context(), stream.Name); err != nil {
		t.Fatal(err)
	}
	away := make(chan struct{}, 1)
	nc.SetDisconnectErrHandler(func(*nats.Conn, error) { away <- struct{}{} })
	c := follow(t, s, m, stream.Options{}, nil)
	c.log.wait(t, "no stream yet")
	s.Stop()
	<-away
	s.Start()
	if _, err := stream.Ensure(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	m.put(resource.KindService, "a", "x")
	c.until(1)
}

// TestPausedConsumer: a consumer whose messages are late is waited for, since to begin again would give a busy server
// more to do; one whose messages do not come, though it has heartbeats, is given up.
func TestPausedConsumer(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.put(resource.KindService, "a", "x")
	c := follow(t, s, m, stream.Options{}, nil)
	c.until(m.rev)
	st, err := js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	pause := func(until time.Time) {
		t.Helper()
		names := st.ConsumerNames(t.Context())
		for name := range names.Name() {
			if _, err := st.PauseConsumer(t.Context(), name, until); err != nil {
				t.Fatal(err)
			}
		}
		if err := names.Err(); err != nil {
			t.Fatal(err)
		}
	}
	pause(time.Now().Add(3 * patience))
	m.put(resource.KindService, "a", "late")
	c.until(m.rev)
	if text := c.log.String(); text != "" {
		t.Errorf("it has begun again: %s", text)
	}
	pause(time.Now().Add(time.Hour))
	m.put(resource.KindService, "a", "never")
	c.log.wait(t, "the stream has moved on without us")
	c.until(m.rev)
}
