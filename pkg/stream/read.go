package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// LastCommit reads the stream's last commit and its last sequence of all; found is false where there is
// no commit.
func LastCommit(ctx context.Context, js jetstream.JetStream) (c Commit, last uint64, found bool, err error) {
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

// Messages counts what the stream holds.
func Messages(ctx context.Context, js jetstream.JetStream) (uint64, error) {
	s, err := js.Stream(ctx, Name)
	if err != nil {
		return 0, fmt.Errorf("count messages: %w", err)
	}
	return s.CachedInfo().State.Msgs, nil
}

// Table reads the last event of every resource, tombstones included.
func Table(ctx context.Context, js jetstream.JetStream) (map[resource.Ref]*resource.Object, error) {
	out := map[resource.Ref]*resource.Object{}
	s, err := js.Stream(ctx, Name)
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	if s.CachedInfo().State.Msgs == 0 {
		return out, nil
	}
	end := s.CachedInfo().State.LastSeq
	cons, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubjects: []string{SubjectPrefix + ">"}})
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	it, err := cons.Messages(jetstream.PullMaxMessages(2000))
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("read table: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, fmt.Errorf("read table: %w", err)
		}
		if m.Subject() != RevisionSubject {
			// What cannot be read is as good as not there: it differs, and is published again.
			if o, err := resource.ParsePayload(m.Data()); err == nil && Subject(o.Ref()) == m.Subject() {
				out[o.Ref()] = o
			}
		}
		if meta.Sequence.Stream >= end || meta.NumPending == 0 {
			return out, nil
		}
	}
}
