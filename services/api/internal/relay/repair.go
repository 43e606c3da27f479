package relay

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/pkg/tracing"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

const (
	// audit is the least time between two looks at every message while nothing is published. Where there are so many
	// that a look takes long, the time grows with it, so that looks cost at most one percent of a core.
	audit = time.Minute
	// overdue is the most, also where something is published all the time.
	overdue = 10 * audit
)

// looks are those at the stream: a cheap one at each poll, and now and then one at every message, beside the writes.
type looks struct {
	// What the last cheap one saw.
	end        stream.End
	reconnects uint64
	// When every message was looked at last, and how long that took.
	at    time.Time
	took  time.Duration
	under bool // one is under way; what it found comes by done
	again bool // and does not see what has happened since it began
	done  chan looked
}

// looked is what a look at every message came to.
type looked struct {
	intact bool
	err    error
	took   time.Duration
}

// compare looks whether the stream is still what was published.
func (r *Relay) compare(ctx context.Context) error {
	end, err := stream.Look(ctx, r.js)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return errors.New("the stream is gone")
	}
	if err != nil {
		return err
	}
	l := &r.looks
	if end.Last != r.seq || !end.Created.Equal(l.end.Created) {
		return r.catchUp(ctx)
	}
	quiet := end.Last == l.end.Last
	if !quiet { // the number of messages, by which a loss would show, has changed anyway
		c, _, found, err := stream.LastCommit(ctx, r.js)
		if err != nil {
			return err
		}
		if !found || c.Epoch != r.commit.Epoch || c.Revision != r.commit.Revision {
			return r.catchUp(ctx)
		}
	}
	// Messages can be lost from the middle: by a bad disk, which shows when NATS was restarted, or by hand.
	age, reconnects := time.Since(l.at), r.js.Conn().Stats().Reconnects
	due := reconnects != l.reconnects || age > overdue || quiet && (age > max(audit, 100*l.took) ||
		end.Messages != l.end.Messages)
	if due && l.under {
		return nil // it is due again when this one has ended
	}
	l.end, l.reconnects = end, reconnects
	if due {
		return r.examine(ctx)
	}
	return nil
}

// examine begins a look at every message of the stream, which [Relay.judge] is told of. Writes are published meanwhile.
func (r *Relay) examine(ctx context.Context) error {
	l := &r.looks
	if l.under {
		l.again = true
		return nil
	}
	end, err := stream.Look(ctx, r.js)
	if err != nil {
		return err
	}
	l.end, l.reconnects, l.at, l.under = end, r.js.Conn().Stats().Reconnects, time.Now(), true
	go func(began time.Time, done chan<- looked) {
		intact, err := stream.Intact(ctx, r.js)
		done <- looked{intact, err, time.Since(began)}
	}(l.at, l.done)
	return nil
}

// judge repairs the stream where a look at every message has found it to be another than its commit says. What was
// written during the look may have led it astray, so that it is asked again, with nothing being written.
func (r *Relay) judge(ctx context.Context, v looked) error {
	again := r.looks.again
	r.looks.under, r.looks.again, r.looks.took = false, false, v.took
	switch {
	case v.err != nil:
		return v.err
	case v.intact && again:
		return r.examine(ctx)
	case v.intact:
		return nil
	}
	intact, err := stream.Intact(ctx, r.js)
	if err != nil || intact {
		return err
	}
	return r.repair(ctx)
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
		r.pubRev.Store(c.Revision)
		r.log.Debug("going on", zap.Int64("after", c.Revision))
		if err := r.behind(ctx, head); err != nil {
			return err
		}
		return r.examine(ctx)
	}
	return r.repair(ctx)
}

// sameHistory says whether the database had the commit's state at its revision.
func (r *Relay) sameHistory(ctx context.Context, c resource.Commit) (bool, error) {
	if c.Revision == 0 {
		return true, nil
	}
	was, err := r.store.StateAt(ctx, c.Revision)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return maps.Equal(was, c.State), nil
}

// repair publishes what differs between the stream's table and the database, and the head's commit.
func (r *Relay) repair(ctx context.Context) error {
	end := r.busy("comparing the stream with the database", 0)
	defer func() { end() }()
	head, objects, err := r.store.Snapshot(ctx)
	if err != nil {
		return err
	}
	table, err := stream.Table(ctx, r.js)
	if err != nil {
		return err
	}
	c := store.Committed{
		Commit: resource.Commit{
			Epoch: head.Epoch, Revision: head.Revision, State: head.State, Actor: "relay",
			Message: "repair of the stream", At: resource.Time(time.Now()),
		},
	}
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
		c.Commit.Changes = append(c.Commit.Changes, resource.ChangedResource{Kind: o.Kind, Name: o.Name, Deleted: o.Deleted})
	}
	r.log.Info("bringing the stream up to the database", zap.Int64("revision", head.Revision),
		zap.Int("objects", len(c.Objects)))
	end()
	end = func() {}
	if err := r.publish(ctx, c, tracing.Now()); err != nil {
		return err
	}
	return r.examine(ctx)
}
