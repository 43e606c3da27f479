package stream_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// older makes the stream as it was made before docs/adr/0016: with eight messages of each subject.
func older(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: stream.Name, Subjects: []string{stream.SubjectPrefix + ">"}, Storage: jetstream.FileStorage,
		MaxMsgsPerSubject: 8,
		Duplicates:        2 * time.Minute, AllowAtomicPublish: true, AllowMsgTTL: true, AllowRollup: true, AllowDirect: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// subjects counts the stream's messages by their subject.
func subjects(t *testing.T, js jetstream.JetStream) map[string]uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Subjects
}

// shorten has the tombstone of an object end in a second, as it does after a day.
func shorten(t *testing.T, js jetstream.JetStream, ref resource.Ref) {
	t.Helper()
	s, err := js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.GetLastMsgForSubject(t.Context(), stream.Subject(ref))
	if err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg(last.Subject)
	m.Data = last.Data
	m.Header.Set(jetstream.MsgTTLHeader, "1s")
	if _, err := js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// expired waits until nothing of the subject is left, and fails where something else than the tombstone shows.
func expired(t *testing.T, js jetstream.JetStream, ref resource.Ref) {
	t.Helper()
	for end := time.Now().Add(limit); ; {
		table, err := stream.Table(t.Context(), js)
		if err != nil {
			t.Fatal(err)
		}
		o := table[ref]
		switch {
		case o == nil:
			return
		case !o.Deleted:
			t.Fatalf("%s has come back: %s", ref, o.Payload())
		case time.Now().After(end):
			t.Fatalf("the tombstone of %s does not end", ref)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestNothingBelow: when a tombstone ends, no version that was before it shows, whatever the size of the transaction
// that brought it, and neither after a restart of NATS, nor after one that has lost the index of its files.
func TestNothingBelow(t *testing.T) {
	dir := t.TempDir()
	s := natstest.StartIn(t, dir)
	_, js := s.Connect()
	older(t, js)
	old := newModel(t, js) // brings the stream's settings up to date
	ref := func(i int) resource.Ref {
		return resource.Ref{Kind: resource.KindService, Name: fmt.Sprint("s", i)}
	}
	for _, text := range []string{"a", "b", "c"} {
		old.publish(old.change(services(1300, text)))
	}
	var few []resource.Ref
	for i := 1; i < 20; i++ {
		few = append(few, ref(i))
	}
	var many []resource.Ref
	for i := 20; i < 1200; i++ {
		many = append(many, ref(i))
	}
	old.publish(old.change(nil, ref(0)))
	old.publish(old.change(nil, few...))
	old.publish(old.change(nil, many...))
	gone := []resource.Ref{ref(0), ref(7), ref(500)}
	for _, r := range gone {
		shorten(t, js, r)
	}
	for _, r := range gone {
		expired(t, js, r)
	}
	check := func(when string) {
		t.Helper()
		table, err := stream.Table(t.Context(), js)
		if err != nil {
			t.Fatal(err)
		}
		live := 0
		for r, o := range table {
			if want := old.objects[r]; !o.Deleted && (want == nil || string(want.Payload()) != string(o.Payload())) {
				t.Errorf("%s: %s is %s", when, r, o.Payload())
			} else if !o.Deleted {
				live++
			}
		}
		if live != len(old.objects) {
			t.Errorf("%s: %d objects of %d", when, live, len(old.objects))
		}
		for subject, n := range subjects(t, js) {
			if n != 1 {
				t.Errorf("%s: %d messages of %s", when, n, subject)
			}
		}
	}
	check("ended")
	s.Stop()
	s.Start()
	check("restarted")
	s.Stop()
	lost := 0
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "index.db" {
			lost++
			return os.Remove(path)
		}
		return err
	})
	if err != nil || lost == 0 {
		t.Fatalf("%d indexes lost: %v", lost, err)
	}
	s.Start()
	check("restarted without an index")
}

// TestMigrates: a stream of an older version gets its settings in place. It keeps the last version of everything, and
// who follows it goes on undisturbed, also a durable consumer, at its place.
func TestMigrates(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	older(t, js)
	m := &model{
		t: t, pub: stream.NewPublisher(js), epoch: epoch, objects: map[resource.Ref]*resource.Object{},
		states: map[string]payloads{},
	}
	for i := range 10 {
		m.publish(m.change(services(40, fmt.Sprint(i)), resource.Ref{Kind: resource.KindRoute, Name: "never"}))
		m.put(resource.KindRoute, "b", fmt.Sprint(i))
	}
	c := follow(t, s, m, stream.Options{}, nil)
	c.until(m.rev)
	st, err := js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	durable, err := st.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
		Durable:       "somebody",
		FilterSubject: stream.SubjectPrefix + ">", DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		AckPolicy: jetstream.AckAllPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	read := func(n int) (last jetstream.Msg) {
		t.Helper()
		batch, err := durable.Fetch(n, jetstream.FetchMaxWait(limit))
		if err != nil {
			t.Fatal(err)
		}
		for last = range batch.Messages() {
			if n--; n == 0 {
				break
			}
		}
		if n > 0 {
			t.Fatalf("%d messages do not come: %v", n, batch.Error())
		}
		if err := last.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
		return last
	}
	read(10)
	created, before := st.CachedInfo().Created, subjects(t, js)
	if before[stream.RevisionSubject] != 8 {
		t.Fatalf("%d commits before", before[stream.RevisionSubject])
	}
	if st, err = stream.Ensure(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	if !st.CachedInfo().Created.Equal(created) {
		t.Error("the stream was made anew")
	}
	after := subjects(t, js)
	for subject := range before {
		if after[subject] != 1 {
			t.Errorf("%d messages of %s", after[subject], subject)
		}
	}
	table, err := stream.Table(t.Context(), js)
	if err != nil || len(table) != len(m.objects)+1 { // and a tombstone
		t.Errorf("%d objects: %v", len(table), err)
	}
	for ref, o := range m.objects {
		if string(table[ref].Payload()) != string(o.Payload()) {
			t.Errorf("another %s", ref)
		}
	}
	if last := read(len(after) - 10); last.Subject() != stream.RevisionSubject {
		t.Errorf("the durable consumer ends at %s", last.Subject())
	} else if meta, err := last.Metadata(); err != nil || meta.NumPending != 0 {
		t.Errorf("it has %d left: %v", meta.NumPending, err)
	}
	m.put(resource.KindRoute, "b", "onwards")
	if u := c.next(); u.Commit.Revision != m.rev || len(u.Changed) != 1 {
		t.Errorf("revision %d changes %d", u.Commit.Revision, len(u.Changed))
	}
	if text := c.log.String(); text != "" {
		t.Errorf("the consumer was disturbed: %s", text)
	}
}

// TestAwayForLonger: a consumer that was away until the tombstone had ended learns of the delete all the same: what it
// has kept is not what the commit speaks of.
func TestAwayForLonger(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	gone := resource.Ref{Kind: resource.KindService, Name: "gone"}
	m.publish(m.change(map[resource.Ref]string{gone: "x", {Kind: resource.KindService, Name: "stays"}: "x"}))
	first := follow(t, s, m, stream.Options{}, nil)
	had := first.until(m.rev)
	first.stop()
	m.publish(m.change(nil, gone))
	shorten(t, js, gone)
	expired(t, js, gone)
	again := follow(t, s, m, stream.Options{Initial: had.Changed, InitialCommit: had.Commit}, nil)
	u := again.next()
	if len(u.Changed) != 1 || !u.Changed[0].Deleted || u.Changed[0].Ref() != gone {
		t.Errorf("%d changed", len(u.Changed))
	}
}

// TestReplaced: while a consumer replays, and while it is slow, what it reads is being replaced all the time. It is
// handed states that there were, ends with the last one, and does not begin again.
func TestReplaced(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.publish(m.change(services(3000, "begin")))
	begun := make(chan struct{}, 1)
	slow := func() {
		select {
		case begun <- struct{}{}:
		default:
		}
		time.Sleep(5 * time.Millisecond) // a slow consumer is the subject
	}
	var all []*consumer
	for i := range 40 {
		if i%10 == 0 {
			all = append(all, follow(t, s, m, stream.Options{}, slow))
		}
		m.publish(m.change(services(200, fmt.Sprint(i)), resource.Ref{
			Kind: resource.KindService,
			Name: fmt.Sprint("s", 300+i),
		}))
		m.put(resource.KindService, fmt.Sprint("s", 350+i), fmt.Sprint(i))
	}
	<-begun
	m.publish(m.change(services(2500, "end")))
	m.put(resource.KindRoute, "last", "x")
	for _, c := range all {
		c.until(m.rev)
		if text := c.log.String(); strings.Contains(text, "replaying") {
			t.Errorf("a consumer began again: %s", text)
		}
	}
}

// TestDeletesCost: a delete costs what a put costs, in a stream that holds much and is followed.
func TestDeletesCost(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	const n = 2000
	m.publish(m.change(services(8*n, "x")))
	for range 3 {
		follow(t, s, m, stream.Options{}, nil).until(m.rev)
	}
	var ratios []float64
	for i := range 5 {
		var refs []resource.Ref
		for k := range n {
			refs = append(refs, resource.Ref{Kind: resource.KindService, Name: fmt.Sprint("s", k)})
		}
		took := func(put map[resource.Ref]string, del ...resource.Ref) time.Duration {
			objects, c := m.change(put, del...)
			limit, cancel := context.WithTimeout(t.Context(), racetest.Deadline(10*time.Second))
			defer cancel()
			began := time.Now()
			seq, err := m.pub.Publish(limit, objects, c, m.seq)
			if err != nil {
				t.Fatalf("%d deleted: %v", len(del), err)
			}
			m.seq = seq
			return time.Since(began)
		}
		put := took(services(n, fmt.Sprint(i)))
		ratios = append(ratios, took(nil, refs...).Seconds()/put.Seconds())
		took(services(n, fmt.Sprint("again", i)))
	}
	slices.Sort(ratios)
	t.Logf("a delete costs %.2f of a put (%.2f)", ratios[2], ratios)
	if ratios[2] > 3 {
		t.Errorf("a delete costs %.1f of what a put costs", ratios[2])
	}
}
