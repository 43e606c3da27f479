package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// LastCommit reads the stream's last commit and its last sequence of all; found is false where there is
// no commit.
func LastCommit(ctx context.Context, js jetstream.JetStream) (c resource.Commit, last uint64, found bool, err error) {
	s, err := js.Stream(ctx, Name)
	if err != nil {
		return c, 0, false, fmt.Errorf("last commit: %w", err)
	}
	last = s.CachedInfo().State.LastSeq
	m, err := s.GetLastMsgForSubject(ctx, RevisionSubject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return c, last, false, nil
	}
	if err != nil {
		return c, last, false, fmt.Errorf("last commit: %w", err)
	}
	if err := json.Unmarshal(m.Data, &c); err != nil {
		return c, last, false, nil //nolint:nilerr // not ours, or altered: repaired like a missing one
	}
	return c, last, true, nil
}

// End is what tells cheaply that a stream is not what it was.
type End struct {
	Created time.Time
	// Last is the last sequence, and Messages how many there are.
	Last, Messages uint64
}

// Look reads it.
func Look(ctx context.Context, js jetstream.JetStream) (End, error) {
	s, err := js.Stream(ctx, Name)
	if err != nil {
		return End{}, fmt.Errorf("look at the stream: %w", err)
	}
	info := s.CachedInfo()
	return End{info.Created, info.State.LastSeq, info.State.Msgs}, nil
}

// Table reads the last event of every resource, tombstones included.
func Table(ctx context.Context, js jetstream.JetStream) (map[resource.Ref]*resource.Object, error) {
	out := map[resource.Ref]*resource.Object{}
	err := each(ctx, js, func(m jetstream.Msg, end bool) bool {
		if m.Subject() != RevisionSubject {
			// What cannot be read is as good as not there: it differs, and is published again.
			if o, err := resource.ParsePayload(m.Data()); err == nil && Subject(o.Ref()) == m.Subject() {
				out[o.Ref()] = o
			}
		}
		return end
	})
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	return out, nil
}

const (
	// stalled is how long messages that there are may be outstanding, and more how long one is waited for that may come;
	// then it is looked whether those that are outstanding are still there.
	stalled = 30 * time.Second
	more    = time.Second
)

// each reads the last message of every subject, and what follows, until the function says that it has enough or nothing
// more comes. It is told of a message with which everything has been read that there was in the beginning.
func each(ctx context.Context, js jetstream.JetStream, enough func(m jetstream.Msg, end bool) bool) error {
	s, err := js.Stream(ctx, Name)
	if err != nil {
		return err
	}
	if s.CachedInfo().State.Msgs == 0 {
		return nil
	}
	last := s.CachedInfo().State.LastSeq
	cons, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubjects: []string{SubjectPrefix + ">"},
	})
	if err != nil {
		return err
	}
	it, err := cons.Messages(jetstream.PullMaxMessages(2000))
	if err != nil {
		return err
	}
	defer it.Stop()
	next := func() (jetstream.Msg, error) {
		ctx, cancel := context.WithTimeout(ctx, more)
		defer cancel()
		return it.Next(jetstream.NextContext(ctx))
	}
	var read uint64 // the consumer's sequence
	for waited, all := time.Duration(0), false; ; {
		m, err := next()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			if waited += more; all || waited >= 2*more && gone(ctx, cons, read) {
				return nil
			} else if waited < stalled {
				continue
			}
		}
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if enough(m, meta.Sequence.Stream >= last || meta.NumPending == 0) {
			return nil
		}
		// Where all is read, somebody may be in the middle of a transaction: one more message is waited for.
		waited, all, read = 0, meta.NumPending == 0, meta.Sequence.Consumer
	}
}

// gone says whether messages that were still to come are no longer there: the stream was purged, or has lost them.
func gone(ctx context.Context, cons jetstream.Consumer, read uint64) bool {
	info, err := cons.Info(ctx)
	return err == nil && info.NumPending == 0 && info.Delivered.Consumer <= read
}

// Intact says whether the stream's resources amount to the state of its last commit. It may be asked while others
// publish: then it reads on until a commit fits, or there is nothing more to read.
func Intact(ctx context.Context, js jetstream.JetStream) (bool, error) {
	type share struct {
		kind string
		sum  resource.Hash
	}
	read, all := map[string]share{}, resource.Tally{}
	fits := false
	err := each(ctx, js, func(m jetstream.Msg, end bool) bool {
		if m.Subject() == RevisionSubject {
			var c resource.Commit
			fits = json.Unmarshal(m.Data(), &c) == nil && maps.Equal(all.State(), c.State)
			return fits && end
		}
		fits = false
		if old, ok := read[m.Subject()]; ok {
			all.Sub(old.kind, old.sum)
			delete(read, m.Subject())
		}
		if kind, sum, ok := digest(m); ok {
			read[m.Subject()] = share{kind, sum}
			all.Add(kind, sum)
		}
		return false
	})
	if err != nil {
		return false, fmt.Errorf("read everything: %w", err)
	}
	return fits, nil
}

// digest is an event's share of its kind's hash; not ok of a tombstone, and of what cannot be read, which is as good as
// not there. The spec is not decoded: its bytes are in the hash.
func digest(m jetstream.Msg) (kind string, sum resource.Hash, ok bool) {
	var e struct {
		Kind     string `json:"kind"`
		Name     string `json:"name"`
		Revision int64  `json:"revision"`
		Deleted  bool   `json:"deleted"`
	}
	if json.Unmarshal(m.Data(), &e) != nil || e.Deleted {
		return "", sum, false
	}
	if _, known := resource.KindByName(e.Kind); !known ||
		Subject(resource.Ref{Kind: e.Kind, Name: e.Name}) != m.Subject() {
		return "", sum, false
	}
	return e.Kind, resource.SumOf(resource.Ref{Kind: e.Kind, Name: e.Name}, e.Revision, m.Data()), true
}
