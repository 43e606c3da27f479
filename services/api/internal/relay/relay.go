// Package relay publishes what the database has committed.
//
// One api leads, by an advisory lock. Its cursor is the stream's own last commit, never a flag of its
// own, so that a stream that was purged, lost or restored from an older copy repairs itself: what
// differs is published again. A stream or an xDS server that is ahead of the database, or has another
// hash for the same revision, tells that an older backup of the database was restored: the epoch is
// renewed, and the difference published under the new one.
package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// poll is the backstop where no wake-up comes.
const poll = time.Second

// audit is the time between two looks at every message while nothing is published: with 10,000 objects a look
// takes 0.2 s, for which a write would wait. Where something is published all the time it is overdue ten times.
const audit = time.Minute

// coalesce is how many revisions behind are published as one difference rather than one by one.
const coalesce = 1000

// Relay publishes. It is woken by [Relay.Committed] and [Relay.Wake].
type Relay struct {
	store  *store.Store
	js     jetstream.JetStream
	pub    *stream.Publisher
	log    *zap.Logger
	fresh  chan store.Committed
	wake   chan struct{}
	pubRev atomic.Int64
	// Changed is called when [Relay.Trouble] may have another answer; set it before Run. It may be nil.
	Changed func()

	mu     sync.Mutex
	served served
	health health
	lags   time.Time // since when the stream is behind, where another api leads

	// The cursor, while leading, and what the stream was when all of it was read last.
	commit stream.Commit
	seq    uint64
	looked look
}

// served is the newest revision that an xDS server has reported.
type served struct {
	epoch    string
	revision int64
}

// look is what tells cheaply that the stream may have lost something.
type look struct {
	seq, messages, reconnects uint64
	at                        time.Time
}

// New returns a relay.
func New(s *store.Store, js jetstream.JetStream, log *zap.Logger) *Relay {
	return &Relay{store: s, js: js, pub: stream.NewPublisher(js), log: log, fresh: make(chan store.Committed, 256), wake: make(chan struct{}, 1)}
}

// Committed hands a revision over right after its commit, which saves reading it back.
func (r *Relay) Committed(c store.Committed) {
	select {
	case r.fresh <- c:
	default:
		r.Wake() // it will be read from the database
	}
}

// Wake has the relay look at the database.
func (r *Relay) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Published is the last revision that is known to be in the stream.
func (r *Relay) Published() int64 { return r.pubRev.Load() }

// Served takes note of what an xDS server serves: more than the database has tells that the database went
// back.
func (r *Relay) Served(epoch string, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch != r.served.epoch || revision > r.served.revision {
		r.served = served{epoch, revision}
	}
}

// ahead says whether somebody serves what the database does not have.
func (r *Relay) ahead(head store.Head) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.served.epoch == head.Epoch && r.served.revision > head.Revision
}

// Run publishes while it leads, and waits to lead otherwise, until the context ends.
func (r *Relay) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := r.lead(ctx); err != nil && ctx.Err() == nil {
			r.failed(ctx, err)
		}
		pause := 200 * time.Millisecond
		if _, lasts := r.Trouble(); lasts {
			pause = time.Second
		}
		r.pause(ctx, pause)
	}
	return nil
}

func (r *Relay) pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (r *Relay) lead(ctx context.Context) error {
	release, alive, ok, err := r.store.Lead(ctx)
	if err != nil {
		return err
	}
	if !ok {
		r.follow(ctx)
		return nil
	}
	defer release()
	if r.away() {
		return errAway
	}
	if _, err := stream.Ensure(ctx, r.js); err != nil {
		return err
	}
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	r.fault("", false)
	r.looked = look{reconnects: r.js.Conn().Stats().Reconnects, at: time.Now()} // catchUp has
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-r.fresh:
			if err := r.publishFresh(ctx, c); err != nil {
				return err
			}
			continue
		case <-r.wake:
		case <-tick.C:
			if err := alive(ctx); err != nil {
				return fmt.Errorf("the leader's connection is gone: %w", err)
			}
			if r.away() {
				return errAway
			}
			if err := r.compare(ctx); err != nil {
				return err
			}
		}
		if err := r.behind(ctx); err != nil {
			return err
		}
	}
}

// follow waits for a turn to lead, keeping an eye on what the leader publishes.
func (r *Relay) follow(ctx context.Context) {
	for len(r.fresh) > 0 {
		<-r.fresh
	}
	if r.away() {
		r.fault(errAway.Error(), false)
		r.pause(ctx, poll)
		return
	}
	limit, cancel := context.WithTimeout(ctx, diagnosis)
	defer cancel()
	c, _, found, err := stream.LastCommit(limit, r.js)
	if err == nil && found {
		r.pubRev.Store(c.Revision)
	}
	if head, err := r.store.Head(limit); err == nil {
		r.behindLeader(ctx, c, head)
	}
	r.pause(ctx, poll)
}

func (r *Relay) publishFresh(ctx context.Context, c store.Committed) error {
	switch {
	case c.Commit.Epoch != r.commit.Epoch || c.Commit.Revision > r.commit.Revision+1:
		return r.behind(ctx)
	case c.Commit.Revision <= r.commit.Revision:
		return nil
	}
	return r.publish(ctx, c)
}

func (r *Relay) publish(ctx context.Context, c store.Committed) error {
	seq, err := r.watched(ctx, func(ctx context.Context) (uint64, error) { return r.pub.Publish(ctx, c.Objects, c.Commit, r.seq) })
	if err != nil {
		return fmt.Errorf("revision %d: %w", c.Commit.Revision, err)
	}
	r.fault("", false)
	r.seq, r.commit = seq, c.Commit
	r.pubRev.Store(c.Commit.Revision)
	return nil
}

// behind publishes the revisions that the stream lacks.
func (r *Relay) behind(ctx context.Context) error {
	head, err := r.store.Head(ctx)
	if err != nil {
		return err
	}
	if r.ahead(head) || head.Epoch != r.commit.Epoch || head.Revision < r.commit.Revision || head.Revision > r.commit.Revision+coalesce {
		return r.catchUp(ctx)
	}
	for n := r.commit.Revision + 1; n <= head.Revision; n++ {
		c, err := r.store.Revision(ctx, n)
		if err != nil {
			return err
		}
		if err := r.publish(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// compare looks whether the stream is still what was published.
func (r *Relay) compare(ctx context.Context) error {
	c, last, found, err := stream.LastCommit(ctx, r.js)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return errors.New("the stream is gone")
	}
	if err != nil {
		return err
	}
	if !found || last != r.seq || c.Epoch != r.commit.Epoch || c.Revision != r.commit.Revision {
		return r.catchUp(ctx)
	}
	// Messages can be lost from the middle: by a bad disk, which shows when NATS was restarted, or by hand.
	messages, err := stream.Messages(ctx, r.js)
	if err != nil {
		return err
	}
	now := look{seq: r.seq, messages: messages, reconnects: r.js.Conn().Stats().Reconnects, at: time.Now()}
	was := r.looked
	age, quiet := now.at.Sub(was.at), now.seq == was.seq
	if now.reconnects == was.reconnects && age < 10*audit && (!quiet || (age < audit && now.messages == was.messages)) {
		now.at = was.at
		r.looked = now
		return nil
	}
	intact, err := r.intact(ctx, c)
	if err != nil {
		return err
	}
	r.looked = now
	if !intact {
		return r.repair(ctx)
	}
	return nil
}

// catchUp makes the stream what the database is, whatever it was.
func (r *Relay) catchUp(ctx context.Context) error {
	c, last, found, err := stream.LastCommit(ctx, r.js)
	if err != nil {
		return err
	}
	r.seq, r.commit = last, c
	head, err := r.store.Head(ctx)
	if err != nil {
		return err
	}
	ours := found && c.Epoch == head.Epoch // not of another life of the database
	fork := r.ahead(head) || (ours && c.Revision > head.Revision)
	if ours && !fork {
		same, err := r.sameHistory(ctx, c)
		if err != nil {
			return err
		}
		fork = !same
	}
	if fork {
		epoch, err := r.store.RenewEpoch(ctx)
		if err != nil {
			return err
		}
		r.log.Warn("somebody has another history than the database: an older backup was restored; a new epoch begins",
			zap.Int64("stream", c.Revision), zap.Int64("database", head.Revision), zap.String("epoch", epoch))
		return r.repair(ctx)
	}
	if ours && c.Revision+coalesce >= head.Revision {
		intact, err := r.intact(ctx, c)
		if err == nil && !intact {
			intact, err = r.begun(ctx, c, head)
		}
		if err != nil {
			return err
		}
		if intact {
			r.pubRev.Store(c.Revision)
			return r.behind(ctx)
		}
	}
	return r.repair(ctx)
}

// begun says whether the stream lacks nothing but what the revisions after its last commit bring: a relay has
// ended after it had published some of their objects. Published again, each is its author's, and no repair.
func (r *Relay) begun(ctx context.Context, c stream.Commit, head store.Head) (bool, error) {
	table, err := stream.Table(ctx, r.js)
	if err != nil {
		return false, err
	}
	for n := c.Revision + 1; n <= head.Revision; n++ {
		next, err := r.store.Revision(ctx, n)
		if err != nil {
			return false, err
		}
		for _, o := range next.Objects {
			table[o.Ref()] = o
		}
	}
	return maps.Equal(summary(maps.Values(table)), head.State), nil
}

// sameHistory says whether the database had the commit's state at its revision.
func (r *Relay) sameHistory(ctx context.Context, c stream.Commit) (bool, error) {
	if c.Revision == 0 {
		return true, nil
	}
	was, err := r.store.Revision(ctx, c.Revision)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return maps.Equal(was.Commit.State, c.State), nil
}

// intact says whether the stream's table is the state of its last commit.
func (r *Relay) intact(ctx context.Context, c stream.Commit) (bool, error) {
	table, err := stream.Table(ctx, r.js)
	if err != nil {
		return false, err
	}
	return maps.Equal(summary(maps.Values(table)), c.State), nil
}

func summary(objects func(func(*resource.Object) bool)) map[string]resource.KindState {
	count, hash := map[string]int64{}, map[string]resource.Hash{}
	for o := range objects {
		if !o.Deleted {
			count[o.Kind]++
			hash[o.Kind] = hash[o.Kind].Add(resource.Sum(o))
		}
	}
	out := map[string]resource.KindState{}
	for kind, n := range count {
		out[kind] = resource.KindState{Count: n, Hash: hash[kind].String()}
	}
	return out
}

// repair publishes what differs between the stream's table and the database, and the head's commit.
func (r *Relay) repair(ctx context.Context) error {
	head, objects, err := r.store.Snapshot(ctx)
	if err != nil {
		return err
	}
	table, err := stream.Table(ctx, r.js)
	if err != nil {
		return err
	}
	c := store.Committed{Commit: stream.Commit{Epoch: head.Epoch, Revision: head.Revision, State: head.State, Actor: "relay", Message: "repair of the stream", At: resource.Time(time.Now())}}
	for _, o := range objects {
		old := table[o.Ref()]
		delete(table, o.Ref())
		if old == nil || old.Deleted || string(old.Payload()) != string(o.Payload()) {
			c.Objects = append(c.Objects, o)
		}
	}
	for ref, old := range table {
		if !old.Deleted {
			c.Objects = append(c.Objects, resource.Tombstone(ref, head.Revision))
		}
	}
	slices.SortFunc(c.Objects, func(a, b *resource.Object) int { return a.Ref().Compare(b.Ref()) })
	for _, o := range c.Objects {
		c.Commit.Changes = append(c.Commit.Changes, stream.ChangedResource{Kind: o.Kind, Name: o.Name, Deleted: o.Deleted})
	}
	r.log.Info("bringing the stream up to the database", zap.Int64("revision", head.Revision), zap.Int("objects", len(c.Objects)))
	return r.publish(ctx, c)
}
