package stream_test

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// services are n services in one transaction.
func services(n int, text string) map[resource.Ref]string {
	out := map[resource.Ref]string{}
	for i := range n {
		out[resource.Ref{Kind: resource.KindService, Name: fmt.Sprintf("s%d", i)}] = text
	}
	return out
}

// sizes are those of a commit alone, of one that travels as an atomic batch, and of one that does not
// fit into one. 999 and 1000 are the edge.
var sizes = []int{0, 1, 999, 1000, 2500}

func TestRoundTrip(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	c := follow(t, s, m, stream.Options{}, nil)
	for _, n := range sizes {
		m.publish(m.change(services(n, fmt.Sprint("size", n))))
		u := c.until(m.rev)
		if len(u.Changed) != n {
			t.Errorf("of %d objects %d came", n, len(u.Changed))
		}
	}
	got, last, found, err := stream.LastCommit(t.Context(), js)
	if err != nil || !found || got.Revision != m.rev || got.Epoch != epoch || last != m.seq {
		t.Errorf("last commit: revision %d, sequence %d (of %d), %v, %v", got.Revision, last, m.seq, found, err)
	}
	table, err := stream.Table(t.Context(), js)
	if err != nil || len(table) != len(m.objects) {
		t.Fatalf("the table has %d objects of %d: %v", len(table), len(m.objects), err)
	}
	for ref, o := range m.objects {
		if string(table[ref].Payload()) != string(o.Payload()) {
			t.Errorf("the table has another %s", ref)
		}
	}
}

// TestLastSequence: what expects another end of the stream than there is leaves no trace.
func TestLastSequence(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.put(resource.KindService, "first", "a")
	for _, n := range sizes {
		for _, expected := range []uint64{m.seq - 1, m.seq + 1} {
			objects, c := m.change(services(n, "x"))
			if _, err := m.pub.Publish(t.Context(), objects, c, expected); !errors.Is(err, stream.ErrLastSequence) {
				t.Errorf("%d objects expecting %d of %d: %v", n, expected, m.seq, err)
			}
			if _, last, _, err := stream.LastCommit(t.Context(), js); err != nil || last != m.seq {
				t.Fatalf("%d objects expecting %d: the stream ends at %d, not %d: %v", n, expected, last, m.seq, err)
			}
		}
	}
}

// TestRetry: a publication whose answer was lost is sent again, and is in the stream once.
func TestRetry(t *testing.T) {
	for _, n := range sizes {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			s := natstest.Start(t)
			_, js := s.Connect()
			m := newModel(t, js)
			objects, c := m.change(services(n, "a"))
			m.publish(objects, c)
			seq, err := m.pub.Publish(t.Context(), objects, c, 0)
			if err != nil && !errors.Is(err, stream.ErrLastSequence) {
				t.Error(err)
			}
			if err == nil && seq != m.seq {
				t.Errorf("the retry says sequence %d, not %d", seq, m.seq)
			}
			if _, last, _, err := stream.LastCommit(t.Context(), js); err != nil || last != m.seq {
				t.Errorf("the stream ends at %d, not %d: %v", last, m.seq, err)
			}
		})
	}
}

// TestAttributes: CloudEvents attributes, and a tombstone's, for those who read the stream without us.
func TestAttributes(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.put(resource.KindRoute, "a", "x")
	objects, c := m.change(nil, resource.Ref{Kind: resource.KindRoute, Name: "a"})
	c.Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	m.publish(objects, c)
	st, err := js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := st.GetLastMsgForSubject(t.Context(), "marchproxy.config.v1.resource.route.a")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"ce-specversion": "1.0", "ce-id": epoch + "/2/Route/a", "ce-source": "marchproxy/api", "ce-subject": "Route/a",
		"ce-type": "dev.marchproxy.config.v1.deleted", "ce-time": c.At, "Content-Type": "application/json",
		"Traceparent":          c.Traceparent,
		jetstream.MsgTTLHeader: "24h0m0s",
	} {
		if got := msg.Header.Get(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	if want := `{"kind":"Route","name":"a","revision":2,"deleted":true}`; string(msg.Data) != want {
		t.Errorf("the tombstone is %s, not %s", msg.Data, want)
	}
	// When the tombstone expires nothing may come to light that it has covered.
	if info, err := st.Info(t.Context(),
		jetstream.WithSubjectFilter("marchproxy.config.v1.resource.route.a")); err != nil ||
		info.State.Subjects["marchproxy.config.v1.resource.route.a"] != 1 {
		t.Errorf("beside the tombstone there are %v: %v", info.State.Subjects, err)
	}
	table, err := stream.Table(t.Context(), js)
	if o := table[resource.Ref{Kind: resource.KindRoute, Name: "a"}]; err != nil || o == nil || !o.Deleted {
		t.Errorf("the table lacks the tombstone: %v %v", o, err)
	}
}

// TestManyChanges: a commit lists no more changes than a message holds.
func TestManyChanges(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	objects, c := m.change(nil)
	c.Changes = make([]resource.ChangedResource, resource.MaxChanges+1)
	m.publish(objects, c)
	got, _, _, err := stream.LastCommit(t.Context(), js)
	if err != nil || len(got.Changes) != 0 {
		t.Errorf("%d changes: %v", len(got.Changes), err)
	}
}

func TestEmptyStream(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	if _, _, _, err := stream.LastCommit(t.Context(), js); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Error("no stream:", err)
	}
	m := newModel(t, js)
	if _, last, found, err := stream.LastCommit(t.Context(), js); found || last != 0 || err != nil {
		t.Error(last, found, err)
	}
	if table, err := stream.Table(t.Context(), js); len(table) != 0 || err != nil {
		t.Error(table, err)
	}
	m.put(resource.KindService, "a", "x")
	st, err := stream.Ensure(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, last, found, err := stream.LastCommit(t.Context(), js); found || last != m.seq || err != nil {
		t.Error("purged:", last, found, err)
	}
	if table, err := stream.Table(t.Context(), js); len(table) != 0 || err != nil {
		t.Error("purged:", table, err)
	}
}

// TestIntact: what differs from its commit is found, and writes beside the look do not lead it astray.
func TestIntact(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	want := func(want bool, when string) {
		t.Helper()
		if got, err := stream.Intact(t.Context(), js); err != nil || got != want {
			t.Errorf("%s: intact %v, %v", when, got, err)
		}
	}
	want(false, "empty")
	gone := resource.Ref{Kind: resource.KindRoute, Name: "gone"}
	m.put(gone.Kind, gone.Name, "x")
	m.publish(m.change(services(3000, "x"), gone))
	want(true, "published")
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				m.put(resource.KindService, fmt.Sprint("s", i*7%3000), fmt.Sprint(i))
			}
		}
	}()
	for range 5 {
		want(true, "while others write")
	}
	close(stop)
	<-ended
	st, err := js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := st.GetLastMsgForSubject(t.Context(), stream.ResourcePrefix+"service.s5")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.DeleteMsg(t.Context(), lost.Sequence); err != nil {
		t.Fatal(err)
	}
	want(false, "a message lost")
	m.repair(js)
	want(true, "repaired")
	for _, data := range []string{`{"kind":"Service","name":"s5","revision":7,"spec":{}}`, "rubbish"} {
		if _, err := js.Publish(t.Context(), stream.ResourcePrefix+"service.s5", []byte(data)); err != nil {
			t.Fatal(err)
		}
		want(false, data)
		m.seq = m.last(js)
		m.publish(nil, m.commit(nil))
		want(false, data+" and a commit")
		m.repair(js)
		want(true, "repaired")
	}
}
