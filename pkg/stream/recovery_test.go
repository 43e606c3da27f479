package stream_test

import (
	"strconv"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// filled is a server with a stream of a few revisions, and a consumer that has seen the last.
func filled(t *testing.T) (*natstest.Server, *model, *consumer) {
	t.Helper()
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.publish(m.change(services(20, "x")))
	m.put(resource.KindRoute, "b", "x")
	c := follow(t, s, m, stream.Options{}, nil)
	c.until(m.rev)
	return s, m, c
}

// TestPurged: who has the state keeps it, who has not gets it from the repair.
func TestPurged(t *testing.T) {
	s, m, c := filled(t)
	_, js := s.Connect()
	st, err := stream.Ensure(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	late := follow(t, s, m, stream.Options{}, nil)
	m.repair(js)
	if u := late.next(); u.Commit.Revision != m.rev || len(u.Changed) != len(m.objects) {
		t.Errorf("revision %d with %d objects of %d", u.Commit.Revision, len(u.Changed), len(m.objects))
	}
	m.put(resource.KindRoute, "b", "y")
	late.until(m.rev)
	if u := c.next(); u.Commit.Revision != m.rev || len(u.Changed) != 1 {
		t.Errorf("revision %d changes %d", u.Commit.Revision, len(u.Changed))
	}
}

// TestRecreated: a stream that was deleted is followed when it is made again, wherever it begins.
func TestRecreated(t *testing.T) {
	s, m, c := filled(t)
	_, js := s.Connect()
	if err := js.DeleteStream(t.Context(), stream.Name); err != nil {
		t.Fatal(err)
	}
	c.log.wait(t, "no stream yet")
	c.quiet()
	if _, err := stream.Ensure(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	m.repair(js)
	m.put(resource.KindRoute, "b", "y")
	c.until(m.rev)
}

// TestRecreatedAtOnce: the same, before anybody has seen that it was gone.
func TestRecreatedAtOnce(t *testing.T) {
	s, m, c := filled(t)
	_, js := s.Connect()
	if err := js.DeleteStream(t.Context(), stream.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Ensure(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	m.repair(js)
	for m.seq < 100 { // past what the consumer saw of the old one
		m.put(resource.KindRoute, "b", "y")
	}
	c.until(m.rev)
}

// TestOlderCopy: the stream's disk is set back while a consumer runs. It keeps what it has until the
// stream is where it was.
func TestOlderCopy(t *testing.T) {
	s, m, c := filled(t)
	s.Stop()
	copied, was := s.Backup(), m.seq
	s.Start()
	m.publish(m.change(services(3, "newer"), resource.Ref{Kind: resource.KindRoute, Name: "b"}))
	m.put(resource.KindRoute, "newer", "x")
	c.until(m.rev)
	s.Stop()
	s.Restore(copied)
	s.Start()
	c.log.wait(t, "the stream is behind what is live")
	c.quiet()
	_, js := s.Connect()
	if n := m.last(js); n != was {
		t.Fatalf("the copy ends at %d, not at %d", n, was)
	}
	m.repair(js)
	m.put(resource.KindRoute, "newest", "x")
	if u := c.until(m.rev); len(u.Changed) != 1 {
		t.Errorf("%d changed", len(u.Changed))
	}
}

// TestNewEpoch: the database was restored from an older backup. Its epoch says so, and the consumer goes
// back with it, to lower revisions.
func TestNewEpoch(t *testing.T) {
	_, m, c := filled(t)
	for range 5 {
		m.put(resource.KindService, "lost", "x")
	}
	c.until(m.rev)
	m.epoch, m.rev = "22222222-2222-4222-8222-222222222222", 1
	objects, commit := m.change(map[resource.Ref]string{{Kind: resource.KindRoute, Name: "b"}: "older"},
		resource.Ref{Kind: resource.KindService, Name: "lost"})
	m.publish(objects, commit)
	if u := c.until(2); len(u.Changed) != 2 {
		t.Errorf("%d changed", len(u.Changed))
	}
	m.put(resource.KindRoute, "b", "onwards")
	c.until(3)
}

// TestOlderCopyOvertaken: the stream's disk is set back, and by the time the consumer looks it is as long
// as it was, with another history.
func TestOlderCopyOvertaken(t *testing.T) {
	for _, more := range []int{0, 1, 5} {
		s, m, c := filled(t)
		s.Stop()
		copied := s.Backup()
		s.Start()
		m.put(resource.KindRoute, "b", "lost")
		c.until(m.rev)
		s.Stop()
		s.Restore(copied)
		s.Start()
		_, js := s.Connect()
		m.epoch, m.rev, m.seq = "33333333-3333-4333-8333-333333333333", 0, m.last(js)
		for i := range more + 1 {
			m.put(resource.KindRoute, "b", "another life "+strconv.Itoa(i))
		}
		c.until(m.rev)
		c.stop()
	}
}

// TestServerRestarts: NATS goes and comes back with all it had.
func TestServerRestarts(t *testing.T) {
	s, m, c := filled(t)
	for range 3 {
		s.Stop()
		s.Start()
		m.put(resource.KindRoute, "b", "y")
		if u := c.until(m.rev); len(u.Changed) != 1 {
			t.Errorf("%d changed", len(u.Changed))
		}
	}
}
