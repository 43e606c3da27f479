// Package relay publishes what the database has committed.
//
// One api leads, by an advisory lock. Its cursor is the stream's own last commit, never a flag of its
// own, so that a stream that was purged, lost or restored from an older copy repairs itself: what
// differs is published again. A stream or an xDS server that is ahead of the database, or has another
// hash for the same revision, tells that an older backup of the database was restored: the epoch is
// renewed, and the difference published under the new one.
//
// # States
//
//	  Run
//	   │
//	   ▼
//	┌──────────────────────────────────┐   another api has the lock
//	│            following             │◄──────────────────────────┐
//	│ looks at what the leader has     │                           │
//	│ published, and asks for the lock ├───────────────────────────┘
//	└──────────────┬───────────────────┘
//	               │ has the lock, and NATS is there
//	               ▼
//	┌──────────────────────────────────┐   the stream is another than the database:
//	│           catching up            │   it was lost, purged or restored, or the database was
//	│ publishes what differs, under a  │◄──────────────────────────┐
//	│ new epoch after a restore        │                           │
//	└──────────────┬───────────────────┘                           │
//	               │ the stream's last commit is the head's        │
//	               ▼                                               │
//	┌──────────────────────────────────┐                           │
//	│             leading              ├───────────────────────────┘
//	│ publishes each revision; looks   │
//	│ at the stream and the database   │
//	│ each second, and at every        │
//	│ message now and then             │
//	└──────────────┬───────────────────┘
//	               │ an error, NATS is away, or the connection that holds the lock is gone
//	               ▼
//	           following, after a pause: another api may lead in the meantime
//
// An api leads as long as its connection to the database lives, which has the lock; there is no lease that ends at a
// time. Two apis lead at once only until the one whose connection is gone notices. That does no harm: both publish the
// same, and the stream takes only the message that follows its last one, so that one of the two fails and begins again.
package relay

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/pkg/tracing"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// poll is the backstop where no wake-up comes.
const poll = time.Second

// coalesce is how many revisions behind are published as one difference rather than one by one.
const coalesce = 1000

// Relay publishes. It is woken by [Relay.Committed] and [Relay.Wake].
type Relay struct {
	store  *store.Store
	js     jetstream.JetStream
	pub    *stream.Publisher
	log    *zap.Logger
	fresh  chan fresh
	wake   chan struct{}
	pubRev atomic.Int64
	// Changed is called when [Relay.Trouble] may have another answer; set it before Run. It may be nil.
	Changed func()

	mu     sync.Mutex
	served served
	health health
	work   []*work   // what it is busy with, the innermost last
	lags   time.Time // since when the stream is behind, where another api leads

	// The cursor, while leading, and the looks at the stream.
	commit resource.Commit
	seq    uint64
	looks  looks
}

// fresh is a revision that was handed over, and when.
type fresh struct {
	store.Committed
	at time.Time
}

// served is the newest revision that an xDS server has reported.
type served struct {
	epoch    string
	revision int64
}

// New returns a relay.
func New(s *store.Store, js jetstream.JetStream, log *zap.Logger) *Relay {
	r := &Relay{
		store: s, js: js, pub: stream.NewPublisher(js), log: log, fresh: make(chan fresh, 256),
		wake: make(chan struct{}, 1),
	}
	r.pub.Progress = r.at
	return r
}

// Committed hands a revision over right after its commit, by this api or another one, which saves reading it back.
func (r *Relay) Committed(c store.Committed) {
	select {
	case r.fresh <- fresh{c, tracing.Now()}:
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
	release, readHead, ok, err := r.store.Lead(ctx)
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
	ctx, cancel := context.WithCancel(ctx) // which ends a look that is under way
	defer cancel()
	r.looks = looks{done: make(chan looked, 1)}
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	r.fault("", false)
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
		case v := <-r.looks.done:
			if err := r.judge(ctx, v); err != nil {
				return err
			}
		case <-tick.C:
			if r.away() {
				return errAway
			}
			if err := r.compare(ctx); err != nil {
				return err
			}
		}
		head, err := readHead(ctx)
		if err != nil {
			return fmt.Errorf("the leader's connection is gone: %w", err)
		}
		if err := r.behind(ctx, head); err != nil {
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

func (r *Relay) publishFresh(ctx context.Context, c fresh) error {
	switch {
	case c.Commit.Epoch != r.commit.Epoch || c.Commit.Revision > r.commit.Revision+1,
		c.Commit.Revision == r.commit.Revision+1 && c.Follows != "" && c.Follows != resource.Digest(r.commit.State):
		head, err := r.store.Head(ctx)
		if err != nil {
			return err
		}
		return r.behind(ctx, head)
	case c.Commit.Revision == r.commit.Revision && !maps.Equal(c.Commit.State, r.commit.State):
		return r.catchUp(ctx) // the number has been taken again: an older backup was restored
	case c.Commit.Revision <= r.commit.Revision:
		return nil
	}
	return r.publish(ctx, c.Committed, c.at)
}

// publish publishes a revision that was handed over, or read, at a time.
func (r *Relay) publish(ctx context.Context, c store.Committed, handed time.Time) error {
	began := tracing.Now()
	defer r.busy(fmt.Sprintf("publishing revision %d", c.Commit.Revision), len(c.Objects))()
	seq, err := r.watched(ctx, func(ctx context.Context) (uint64, error) {
		return r.pub.Publish(ctx, c.Objects,
			c.Commit, r.seq)
	})
	if tracing.On() {
		now := time.Now()
		revision := attribute.Int64("marchproxy.revision", c.Commit.Revision)
		whole := tracing.Span(tracing.Parent(c.Commit.Traceparent), "relay", handed, now, err, revision)
		tracing.Span(whole, "publish", began, now, err, revision, attribute.Int("marchproxy.objects", len(c.Objects)))
	}
	if err != nil {
		return fmt.Errorf("revision %d: %w", c.Commit.Revision, err)
	}
	r.fault("", false)
	r.seq, r.commit = seq, c.Commit
	r.pubRev.Store(c.Commit.Revision)
	r.log.Debug("published", zap.Int64("revision", c.Commit.Revision), zap.String("actor", c.Commit.Actor),
		zap.Uint64("sequence", seq),
		zap.String("request_id", c.Commit.RequestID), tracing.ID(c.Commit.Traceparent))
	return nil
}

// behind publishes the revisions that the stream lacks.
func (r *Relay) behind(ctx context.Context, head store.Head) error {
	if r.ahead(head) || head.Epoch != r.commit.Epoch || head.Revision < r.commit.Revision ||
		head.Revision > r.commit.Revision+coalesce {
		return r.catchUp(ctx)
	}
	if head.Revision == r.commit.Revision && maps.Equal(head.State, r.commit.State) {
		return nil
	}
	// An older backup that was restored may have written as much as was published, or more, before anybody looked.
	if same, err := r.sameHistory(ctx, r.commit); err != nil {
		return err
	} else if !same {
		return r.catchUp(ctx)
	}
	first := r.commit.Revision + 1
	if first < head.Revision {
		defer r.busy(fmt.Sprintf("publishing the revisions up to %d", head.Revision), int(head.Revision-first)+1)()
	}
	for n := first; n <= head.Revision; n++ {
		r.at(int(n-first), 0)
		c, err := r.store.Revision(ctx, n)
		if err != nil {
			return err
		}
		if err := r.publish(ctx, c, tracing.Now()); err != nil {
			return err
		}
	}
	return nil
}
