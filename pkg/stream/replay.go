package stream

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// Options of a replay.
type Options struct {
	// Kinds that are followed; every kind where nil.
	Kinds []string
	// Initial is what the consumer has already, from its disk, and InitialCommit that state's commit.
	Initial       []*resource.Object
	InitialCommit resource.Commit
	// Apart, where it is not "", makes a consumer of each kind, and one of the commits, whose names begin with it
	// ([ConsumerName]). Such a consumer says its name and its one filter in the subject by which it is made, so that NATS
	// can keep who follows some kinds from reading the others, also by other people's consumers.
	Apart string
	// OnUpdate takes an update. An error ends the replay.
	OnUpdate func(resource.Update) error
	// Patience is how long unequal hashes are borne before everything is replayed; 2s where 0. It is also
	// the time between looks at whether the stream has moved on without us, see [bearable].
	Patience time.Duration
	// OnProgress, where it is set, is told every five seconds of which the consumer is behind the stream how far it is,
	// and nil when it is up to it again.
	OnProgress func(*Progress)
	// OnMismatch, where it is set, is told true when what was read does not have the hash of its commit, and false when it
	// has it again.
	OnMismatch func(bool)
	// Noticed is how long it is behind before that is said, in the log too, and how often; [status.Long] where 0.
	Noticed time.Duration
	Log     *zap.Logger
}

// Replay follows the stream until the context ends or OnUpdate fails. It waits for NATS and the stream
// where they are missing.
func Replay(ctx context.Context, js jetstream.JetStream, opt Options) error {
	if opt.Patience == 0 {
		opt.Patience = 2 * time.Second
	}
	if opt.Kinds == nil {
		for _, k := range resource.Kinds {
			opt.Kinds = append(opt.Kinds, k.Name)
		}
	}
	r := &replay{js: js, table: newTable(), commit: opt.InitialCommit}
	r.meter = &meter{log: opt.Log, tell: opt.OnProgress, every: cmp.Or(opt.Noticed, status.Long)}
	defer r.meter.done(0)
	for _, o := range opt.Initial {
		r.table.put(o.Ref(), newEntry(o))
	}
	r.started = len(opt.Initial) > 0 || opt.InitialCommit.Epoch != ""
	opt.Initial = nil // what changes from now on need not stay in memory as it was
	r.opt = opt
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		began := time.Now()
		err := r.session(ctx)
		var fatal *fatalError
		switch {
		case ctx.Err() != nil:
			return nil // it was told to end
		case errors.As(err, &fatal):
			return fatal.err
		}
		opt.Log.Info("replaying the configuration from the start", zap.String("reason", err.Error()))
		if time.Since(began) > 10*time.Second {
			pause = 50 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// fatalError ends the replay as a whole.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }

// entry is an object with its share of the hash, which is reckoned once.
type entry struct {
	*resource.Object
	sum resource.Hash
}

func newEntry(o *resource.Object) *entry {
	if o.Deleted {
		return &entry{Object: o}
	}
	return &entry{o, resource.Sum(o)}
}

// table is a state with its hashes.
type table struct {
	objects map[resource.Ref]*entry
	tally   resource.Tally
}

func newTable() *table { return &table{map[resource.Ref]*entry{}, resource.Tally{}} }

// put takes an object in the place of the one before it; nil or a tombstone only takes that away.
func (t *table) put(r resource.Ref, e *entry) {
	if old := t.objects[r]; old != nil {
		t.tally.Sub(r.Kind, old.sum)
	}
	if e == nil || e.Deleted {
		delete(t.objects, r)
		return
	}
	t.tally.Add(r.Kind, e.sum)
	t.objects[r] = e
}

// matches says whether the kinds are what a commit says of them.
func (t *table) matches(c resource.Commit, kinds []string) bool {
	for _, k := range kinds {
		if t.tally.Of(k) != c.State[k] {
			return false
		}
	}
	return true
}

type replay struct {
	opt Options
	js  jetstream.JetStream
	// table and commit are what the consumer has been handed.
	table   *table
	commit  resource.Commit
	started bool
	differs bool // from its commit's hash: what was read last
	meter   *meter
}

// session is one pass: a replay of everything, then what follows, until something is amiss.
type session struct {
	*replay
	next    *table                    // what the messages so far amount to
	touched map[resource.Ref]struct{} // differing from table, perhaps; nil while replaying
	seq     uint64                    // of the last message
	read    uint64                    // of the last commit, and its bytes
	bytes   []byte
	amiss   time.Time // since when hashes have been unequal
	silent  int       // looks since the last message that have found a later commit
	// pending is what each consumer has still to deliver, and last the commit that was read last: where there are several
	// consumers it may come before its objects.
	pending map[string]uint64
	last    *resource.Commit
}

func (r *replay) session(ctx context.Context) error {
	st, err := r.js.Stream(ctx, Name)
	if err != nil {
		return fmt.Errorf("no stream yet: %w", err)
	}
	filters := []string{RevisionSubject}
	for _, name := range r.opt.Kinds {
		if k, ok := resource.KindByName(name); ok {
			filters = append(filters, KindSubjects(k.Name))
		}
	}
	it, err := open(ctx, st, filters, r.opt)
	if err != nil {
		return err
	}
	defer it.Stop()
	s := &session{replay: r, next: newTable(), pending: map[string]uint64{}}
	look := time.Now().Add(r.opt.Patience)
	for {
		if time.Now().After(look) {
			if err := s.look(ctx, st); err != nil {
				return err
			}
			look = time.Now().Add(r.opt.Patience)
		}
		limit, cancel := context.WithDeadline(ctx, look)
		m, err := it.Next(limit)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			continue
		case err != nil:
			return fmt.Errorf("the consumer ended: %w", err)
		}
		s.silent = 0
		if err := s.message(m); err != nil {
			return err
		}
	}
}

// heartbeat is how often the server says that it has nothing, within what NATS takes.
func heartbeat(patience time.Duration) time.Duration {
	return min(max(patience, 500*time.Millisecond), 10*time.Second)
}

// bearable is how many looks may find nothing new, though the stream has a later commit. A consumer that has no
// heartbeat for twice its time ends by itself; one that has them, and no messages for longer, is dead. Less tells
// nothing: a busy server answers a question while its consumers wait for their turn, and to begin again would only give
// it more to do.
func bearable(patience time.Duration) int {
	return 1 + int((2*heartbeat(patience)+patience-1)/patience)
}

// look compares with the stream itself: a watch can die quietly, and a stream be replaced under it. Where its last
// commit is the one that was read last, or a later one, that is one cheap question.
func (s *session) look(ctx context.Context, st jetstream.Stream) error {
	limit, cancel := context.WithTimeout(ctx, s.opt.Patience)
	defer cancel()
	m, err := st.GetLastMsgForSubject(limit, RevisionSubject)
	switch {
	case err == nil && m.Sequence > s.seq:
		// Where messages come, however slowly, and however long the consumer took over the last ones, it is on its way.
		if s.silent++; s.silent > bearable(s.opt.Patience) {
			return errors.New("the stream has moved on without us")
		}
	case err != nil || m.Sequence != s.read || !bytes.Equal(m.Data, s.bytes):
		s.silent = 0
		if why := s.replaced(limit, st, err == nil); why != nil {
			return why
		}
	}
	if !s.amiss.IsZero() && time.Since(s.amiss) > s.opt.Patience {
		return errors.New("the state's hash has stayed unequal")
	}
	return nil
}

// replaced says what has become of a stream whose last commit is not the one that was read last.
func (s *session) replaced(ctx context.Context, was jetstream.Stream, commit bool) error {
	st, err := s.js.Stream(ctx, Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return errors.New("the stream is gone")
	case err != nil:
		return nil //nolint:nilerr // NATS is away: the consumer goes on when it is back
	case !st.CachedInfo().Created.Equal(was.CachedInfo().Created):
		return errors.New("the stream was made anew")
	case st.CachedInfo().State.LastSeq < s.seq:
		return errors.New("the stream was set back")
	case commit:
		return errors.New("the stream was set back, and went another way")
	}
	return nil // purged: the relay will publish again, and then there is something to compare
}

func (s *session) message(m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("a message without metadata: %w", err)
	}
	s.seq = max(s.seq, meta.Sequence.Stream)
	pending := s.outstanding(m.Subject(), meta.NumPending)
	s.meter.message(pending)
	defer s.meter.done(pending)
	if m.Subject() == RevisionSubject {
		s.read, s.bytes, s.last = meta.Sequence.Stream, m.Data(), nil
		var c resource.Commit
		if err := json.Unmarshal(m.Data(), &c); err != nil {
			s.opt.Log.Warn("a commit cannot be read; waiting for the next", zap.Uint64("sequence", s.seq), zap.Error(err))
			return nil
		}
		s.last = &c
		return s.consider(c, pending)
	}
	e, err := s.entry(m.Subject(), m.Data())
	if err != nil {
		s.opt.Log.Warn("an event cannot be read; the state waits for a repair", zap.String("subject", m.Subject()),
			zap.Uint64("sequence", s.seq), zap.Error(err))
		return nil
	}
	s.next.put(e.Ref(), e)
	if s.touched != nil {
		s.touched[e.Ref()] = struct{}{}
	}
	if l := s.last; s.opt.Apart != "" && l != nil && pending == 0 && (l.Epoch != s.commit.Epoch ||
		l.Revision != s.commit.Revision) {
		return s.consider(*l, pending) // which came before this object
	}
	return nil
}

// outstanding is what all consumers have still to deliver, after a message of one of them.
func (s *session) outstanding(subject string, pending uint64) (all uint64) {
	if s.opt.Apart == "" {
		return pending
	}
	of := subject
	if subject != RevisionSubject {
		of = subject[:strings.LastIndexByte(subject, '.')]
	}
	s.pending[of] = pending
	for _, n := range s.pending {
		all += n
	}
	return all
}

// entry reads an event. One that the consumer has already, from its disk or from a session before, is neither parsed
// again nor there twice: after a restart that is all of them.
func (s *session) entry(subject string, payload []byte) (*entry, error) {
	if ref, ok := refOf(subject); ok {
		if e := s.table.objects[ref]; e != nil && bytes.Equal(e.Payload(), payload) {
			return e, nil
		}
	}
	// The client's bytes are a part of the message, whose headers would stay in memory with them, as long again.
	o, err := resource.ParsePayload(bytes.Clone(payload))
	if err != nil {
		return nil, err
	}
	if Subject(o.Ref()) != subject {
		return nil, fmt.Errorf("it is of %s", o.Ref())
	}
	return newEntry(o), nil
}

// consider hands the state over if it is the one that the commit speaks of.
func (s *session) consider(c resource.Commit, pending uint64) error {
	if !s.next.matches(c, s.opt.Kinds) {
		if s.amiss.IsZero() && pending == 0 {
			s.amiss = time.Now()
			s.mismatch(true)
		}
		return nil
	}
	s.amiss = time.Time{}
	s.mismatch(false)
	if s.started && c.Epoch == s.commit.Epoch && c.Revision < s.commit.Revision {
		// An older copy of the stream: what is live is newer, and the relay will bring the stream up to it.
		s.opt.Log.Warn("the stream is behind what is live; waiting for its repair", zap.Int64("stream", c.Revision),
			zap.Int64("live", s.commit.Revision))
		return nil
	}
	u := resource.Update{Commit: c, Changed: s.changed()}
	if s.touched != nil && len(u.Changed) == 0 && s.started && c.Epoch == s.commit.Epoch &&
		c.Revision == s.commit.Revision {
		s.touched = map[resource.Ref]struct{}{}
		return nil // a repair said again what we have
	}
	s.meter.takes(c.Revision, len(u.Changed))
	if err := s.opt.OnUpdate(u); err != nil {
		return &fatalError{err}
	}
	for _, o := range u.Changed {
		s.table.put(o.Ref(), s.next.objects[o.Ref()])
	}
	s.commit, s.started = c, true
	// A new one: after ten thousand at once the old one would cost every later change a walk through its empty room.
	s.touched = map[resource.Ref]struct{}{}
	return nil
}

// mismatch tells that the hashes differ, or agree again, where that is news. What a session has found amiss stays so
// until another one has read a state whose hash agrees.
func (r *replay) mismatch(is bool) {
	if r.opt.OnMismatch != nil && r.differs != is {
		r.opt.OnMismatch(is)
	}
	r.differs = is
}

// changed lists how next differs from what was handed over.
func (s *session) changed() []*resource.Object {
	var out []*resource.Object
	add := func(r resource.Ref) {
		now, old := s.next.objects[r], s.table.objects[r]
		switch {
		case now == nil && old != nil:
			out = append(out, resource.Tombstone(r, old.Revision))
		case now != nil && (old == nil || old.Revision != now.Revision || string(old.Payload()) != string(now.Payload())):
			out = append(out, now.Object)
		}
	}
	if s.touched != nil {
		for r := range s.touched {
			add(r)
		}
	} else {
		for r := range s.next.objects {
			add(r)
		}
		for r := range s.table.objects {
			if s.next.objects[r] == nil {
				add(r)
			}
		}
	}
	slices.SortFunc(out, func(a, b *resource.Object) int { return a.Ref().Compare(b.Ref()) })
	return out
}
