package stream_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// patience is the shortest that does not make a slow machine replay for nothing.
var patience = racetest.Deadline(300 * time.Millisecond)

// limit is how long a test waits for what must come.
var limit = racetest.Deadline(30 * time.Second)

const epoch = "11111111-1111-4111-8111-111111111111"

// payloads is a state as a consumer has it: what was published of each object.
type payloads map[resource.Ref]string

// model is the database of a test: it makes transactions, publishes them and knows every state there was.
type model struct {
	t       testing.TB
	pub     *stream.Publisher
	epoch   string
	rev     int64
	seq     uint64
	objects map[resource.Ref]*resource.Object
	mu      sync.Mutex
	states  map[string]payloads // by epoch/revision
}

func newModel(t testing.TB, js jetstream.JetStream) *model {
	t.Helper()
	if _, err := stream.Ensure(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	return &model{
		t: t, pub: stream.NewPublisher(js), epoch: epoch, objects: map[resource.Ref]*resource.Object{},
		states: map[string]payloads{},
	}
}

func object(t testing.TB, kind, name, text string, rev int64) *resource.Object {
	t.Helper()
	o := &resource.Object{}
	var err error
	ref := resource.Ref{Kind: kind, Name: name}
	switch kind {
	case resource.KindRoute:
		o, err = resource.New(ref, &configv1.Route{Hosts: []string{"a.example.com"}, DirectResponse: &configv1.DirectResponse{
			Status: 200, Body: text,
		}})
	case resource.KindService:
		o, err = resource.New(ref, &configv1.Service{
			Endpoints: []*configv1.Endpoint{{Host: "127.0.0.1", Port: 8080, Zone: text}},
		})
	case resource.KindCertificate:
		o, err = resource.New(ref, &configv1.Certificate{Chain: text})
	default:
		t.Fatal("kind", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	o.Revision = rev
	return o
}

// commit makes the commit of the model's state.
func (m *model) commit(objects []*resource.Object) resource.Commit {
	c := resource.Commit{
		Epoch: m.epoch, Revision: m.rev, State: summary(maps.Values(m.objects)), Actor: "test",
		At: resource.Time(time.Now()),
	}
	for _, o := range objects {
		c.Changes = append(c.Changes, resource.ChangedResource{Kind: o.Kind, Name: o.Name, Deleted: o.Deleted})
	}
	return c
}

func summary(objects func(func(*resource.Object) bool)) map[string]resource.KindState {
	count, hash := map[string]int64{}, map[string]resource.Hash{}
	for o := range objects {
		count[o.Kind]++
		hash[o.Kind] = hash[o.Kind].Add(resource.Sum(o))
	}
	out := map[string]resource.KindState{}
	for kind, n := range count {
		out[kind] = resource.KindState{Count: n, Hash: hash[kind].String()}
	}
	return out
}

// change is one transaction of the model: texts by object, and what is deleted.
func (m *model) change(
	put map[resource.Ref]string, del ...resource.Ref,
) (objects []*resource.Object, c resource.Commit) {
	m.t.Helper()
	m.rev++
	for ref, text := range put {
		o := object(m.t, ref.Kind, ref.Name, text, m.rev)
		m.objects[ref] = o
		objects = append(objects, o)
	}
	for _, ref := range del {
		delete(m.objects, ref)
		objects = append(objects, resource.Tombstone(ref, m.rev))
	}
	slices.SortFunc(objects, func(a, b *resource.Object) int { return a.Ref().Compare(b.Ref()) })
	state := payloads{}
	for ref, o := range m.objects {
		state[ref] = string(o.Payload())
	}
	m.mu.Lock()
	m.states[fmt.Sprint(m.epoch, m.rev)] = state
	m.mu.Unlock()
	return objects, m.commit(objects)
}

func (m *model) publish(objects []*resource.Object, c resource.Commit) {
	m.t.Helper()
	seq, err := m.pub.Publish(m.t.Context(), objects, c, m.seq)
	if err != nil {
		m.t.Fatalf("publish revision %d: %v", c.Revision, err)
	}
	m.seq = seq
}

// put is a transaction of one object, published.
func (m *model) put(kind, name, text string) {
	m.t.Helper()
	m.publish(m.change(map[resource.Ref]string{{Kind: kind, Name: name}: text}))
}

// repair publishes everything again behind whatever the stream holds, as the relay does for a stream that
// was lost.
func (m *model) repair(js jetstream.JetStream) {
	m.t.Helper()
	table, err := stream.Table(m.t.Context(), js)
	if err != nil {
		m.t.Fatal(err)
	}
	all := slices.Collect(maps.Values(m.objects))
	for ref, o := range table {
		if m.objects[ref] == nil && !o.Deleted {
			all = append(all, resource.Tombstone(ref, m.rev))
		}
	}
	slices.SortFunc(all, func(a, b *resource.Object) int { return a.Ref().Compare(b.Ref()) })
	m.seq = m.last(js)
	m.publish(all, m.commit(all))
}

// last is the stream's last sequence.
func (m *model) last(js jetstream.JetStream) uint64 {
	m.t.Helper()
	_, n, _, err := stream.LastCommit(m.t.Context(), js)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// want is the state of a commit, of some kinds.
func (m *model) want(c resource.Commit, kinds []string) payloads {
	m.mu.Lock()
	defer m.mu.Unlock()
	state, ok := m.states[fmt.Sprint(c.Epoch, c.Revision)]
	if !ok {
		m.t.Errorf("update of revision %d of epoch %s, which there never was", c.Revision, c.Epoch)
	}
	out := payloads{}
	for ref, p := range state {
		if kinds == nil || slices.Contains(kinds, ref.Kind) {
			out[ref] = p
		}
	}
	return out
}

// consumer is a replay that checks every update against the model.
type consumer struct {
	t       testing.TB
	m       *model
	opt     stream.Options
	table   payloads
	last    resource.Commit
	updates chan resource.Update
	log     *logs
	stop    func()
}

// follow starts a replay; before, where not nil, is called ahead of each update's check.
func follow(t testing.TB, s *natstest.Server, m *model, opt stream.Options, before func()) *consumer {
	t.Helper()
	_, js := s.Connect()
	c := &consumer{t: t, m: m, opt: opt, table: payloads{}, updates: make(chan resource.Update, 4096), log: newLogs()}
	for _, o := range opt.Initial {
		c.table[o.Ref()] = string(o.Payload())
	}
	c.last = opt.InitialCommit
	c.opt.Patience, c.opt.Log = patience, c.log.logger()
	c.opt.OnUpdate = func(u resource.Update) error {
		if before != nil {
			before()
		}
		c.take(u)
		c.updates <- u
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- stream.Replay(ctx, js, c.opt) }()
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(c.stop)
	return c
}

func (c *consumer) take(u resource.Update) {
	if u.Commit.Epoch == c.last.Epoch && u.Commit.Revision < c.last.Revision {
		c.t.Errorf("went back from revision %d to %d", c.last.Revision, u.Commit.Revision)
	}
	for _, o := range u.Changed {
		if o.Deleted {
			if _, had := c.table[o.Ref()]; !had {
				c.t.Errorf("revision %d deletes %s, which the consumer did not have", u.Commit.Revision, o.Ref())
			}
			delete(c.table, o.Ref())
			continue
		}
		if c.table[o.Ref()] == string(o.Payload()) {
			c.t.Errorf("revision %d hands over %s again, unchanged", u.Commit.Revision, o.Ref())
		}
		c.table[o.Ref()] = string(o.Payload())
	}
	if want := c.m.want(u.Commit, c.opt.Kinds); !maps.Equal(c.table, want) {
		c.t.Errorf("at revision %d the consumer has %d objects that are not the state of that revision (%d objects)",
			u.Commit.Revision, len(c.table), len(want))
	}
	c.last = u.Commit
}

// until waits for the update of a revision and returns it.
func (c *consumer) until(rev int64) resource.Update {
	c.t.Helper()
	after := time.After(limit)
	for {
		select {
		case u := <-c.updates:
			if u.Commit.Revision == rev && u.Commit.Epoch == c.m.epoch {
				return u
			}
		case <-after:
			c.t.Fatalf("revision %d does not come; the log has: %s", rev, c.log)
		}
	}
}

// next is the next update, whichever it is.
func (c *consumer) next() resource.Update {
	c.t.Helper()
	select {
	case u := <-c.updates:
		return u
	case <-time.After(limit):
		c.t.Fatalf("no update comes; the log has: %s", c.log)
		panic("unreachable")
	}
}

// quiet fails where there are updates that nobody has asked for.
func (c *consumer) quiet() {
	c.t.Helper()
	select {
	case u := <-c.updates:
		c.t.Fatalf("an update of revision %d came (%d changed), though nothing should", u.Commit.Revision, len(u.Changed))
	default:
	}
}

// logs are the messages of a replay's log, which are the moments to wait for.
type logs struct {
	mu   sync.Mutex
	all  []string
	more chan struct{}
}

func newLogs() *logs { return &logs{more: make(chan struct{})} }

func (l *logs) logger() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"}), l, zap.DebugLevel))
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	close(l.more)
	l.more = make(chan struct{})
	return len(p), nil
}

func (l *logs) Sync() error { return nil }

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, "")
}

// wait waits for a message that holds a text, and forgets what came up to it.
func (l *logs) wait(t testing.TB, text string) {
	t.Helper()
	after := time.After(limit)
	for {
		l.mu.Lock()
		more := l.more
		i := slices.IndexFunc(l.all, func(s string) bool { return strings.Contains(s, text) })
		if i >= 0 {
			l.all = l.all[i+1:]
		}
		l.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-more:
		case <-after:
			t.Fatalf("the log never says %q; it has: %s", text, l)
		}
	}
}

// random is a transaction of a random size: mostly a few objects, at times more than a batch takes.
func (m *model) random(r *rand.Rand) ([]*resource.Object, resource.Commit) {
	m.t.Helper()
	kinds := []string{resource.KindService, resource.KindRoute, resource.KindCertificate}
	n := 1 + r.IntN(6)
	if r.IntN(8) == 0 {
		n = 990 + r.IntN(30)
	}
	put := map[resource.Ref]string{}
	var del []resource.Ref
	for range n {
		ref := resource.Ref{Kind: kinds[r.IntN(len(kinds))], Name: fmt.Sprintf("n%d", r.IntN(700))}
		if _, twice := put[ref]; twice || slices.Contains(del, ref) {
			continue
		}
		if _, have := m.objects[ref]; have && r.IntN(3) == 0 {
			del = append(del, ref)
			continue
		}
		put[ref] = fmt.Sprint(r.IntN(1000))
	}
	return m.change(put, del...)
}
