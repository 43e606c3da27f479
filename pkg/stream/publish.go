package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// batchLimit is how many messages the server takes as one atomic batch.
const batchLimit = 1000

// window is how many messages of a larger transaction may be unacknowledged.
const window = 512

// Publisher writes to the stream. One at a time may: the expected sequence sees to it.
type Publisher struct {
	js jetstream.JetStream
}

// NewPublisher returns a publisher; the stream must exist (see [Ensure]).
func NewPublisher(js jetstream.JetStream) *Publisher { return &Publisher{js} }

// Publish writes the objects of a transaction (tombstones included) and its commit, as one atomic batch
// where they fit, and returns the sequence of the commit. The stream's last sequence must be expected,
// otherwise nothing is written and the error is [ErrLastSequence].
func (p *Publisher) Publish(ctx context.Context, objects []*resource.Object, c Commit, expected uint64) (uint64, error) {
	if len(c.Changes) > MaxChanges {
		c.Changes = nil
	}
	commit, err := json.Marshal(c)
	if err != nil {
		return expected, fmt.Errorf("publish: %w", err)
	}
	last := p.message(RevisionSubject, commit, c, "revision", "", expected)
	if len(objects) == 0 {
		last.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(expected, 10))
		ack, err := p.js.PublishMsg(ctx, last)
		if err != nil {
			return expected, publishError(err)
		}
		return ack.Sequence, nil
	}
	switch {
	case len(objects) == 1:
		return p.pair(ctx, p.resource(objects[0], c, expected), last, expected)
	case len(objects) >= batchLimit:
		return p.pipeline(ctx, objects, c, last, expected)
	}
	return p.batch(ctx, objects, c, last, expected)
}

// pair publishes the one object of a transaction and its commit without waiting in between. One object is
// whole by itself, and a batch would keep it from the consumers for 4 ms: docs/adr/0005. The commit expects
// the object's id before it, so that it is never stored without it, and its answer speaks for both; an object
// whose commit was lost is repaired like any other difference.
func (p *Publisher) pair(ctx context.Context, object, commit *nats.Msg, expected uint64) (uint64, error) {
	object.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(expected, 10))
	commit.Header.Set(jetstream.ExpectedLastMsgIDHeader, object.Header.Get(jetstream.MsgIDHeader))
	if err := p.js.Conn().PublishMsg(object); err != nil {
		return expected, publishError(err)
	}
	ack, err := p.js.PublishMsg(ctx, commit)
	if err != nil {
		return expected, publishError(err)
	}
	return ack.Sequence, nil
}

func (p *Publisher) batch(ctx context.Context, objects []*resource.Object, c Commit, last *nats.Msg, expected uint64) (uint64, error) {
	b, err := jetstreamext.NewBatchPublisher(p.js, jetstreamext.BatchFlowControl{})
	if err != nil {
		return expected, fmt.Errorf("publish: %w", err)
	}
	for i, o := range objects {
		var opts []jetstreamext.BatchMsgOpt
		if i == 0 {
			opts = append(opts, jetstreamext.WithBatchExpectLastSequence(expected))
		}
		if err := b.AddMsg(p.resource(o, c, expected), opts...); err != nil {
			return expected, errors.Join(publishError(err), b.Discard())
		}
	}
	ack, err := b.CommitMsg(ctx, last)
	if err != nil {
		return expected, publishError(err)
	}
	return ack.Sequence, nil
}

// pipeline publishes more than a batch takes. A consumer applies nothing before the commit, so that it
// sees the transaction whole all the same.
func (p *Publisher) pipeline(ctx context.Context, objects []*resource.Object, c Commit, last *nats.Msg, expected uint64) (uint64, error) {
	seq := expected
	acks := make([]jetstream.PubAckFuture, 0, window)
	drain := func() error {
		for _, a := range acks {
			select {
			case ack := <-a.Ok():
				seq = max(seq, ack.Sequence)
			case err := <-a.Err():
				return publishError(err)
			case <-ctx.Done():
				return fmt.Errorf("publish: %w", context.Cause(ctx))
			}
		}
		acks = acks[:0]
		return nil
	}
	for i, o := range objects {
		m := p.resource(o, c, expected)
		if i == 0 {
			m.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(expected, 10))
		}
		a, err := p.js.PublishMsgAsync(m)
		if err != nil {
			return seq, publishError(err)
		}
		acks = append(acks, a)
		if i == 0 || len(acks) == window {
			if err := drain(); err != nil {
				return seq, err
			}
		}
	}
	if err := drain(); err != nil {
		return seq, err
	}
	last.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(seq, 10))
	ack, err := p.js.PublishMsg(ctx, last)
	if err != nil {
		return seq, publishError(err)
	}
	return ack.Sequence, nil
}

func publishError(err error) error {
	if isLastSequence(err) {
		return ErrLastSequence
	}
	return fmt.Errorf("publish: %w", err)
}

func (p *Publisher) resource(o *resource.Object, c Commit, expected uint64) *nats.Msg {
	m := p.message(Subject(o.Ref()), o.Payload(), c, "resource", o.Ref().String(), expected)
	if o.Deleted {
		m.Header.Set("ce-type", "dev.marchproxy.config.v1.deleted")
		m.Header.Set(jetstream.MsgTTLHeader, tombstoneTTL.String())
		// Nothing may be left below a tombstone: when it expires, the version before would be the last again.
		m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	}
	return m
}

// message makes a message with CloudEvents attributes. Its id holds the place in the stream, so that a
// repair after a purge is no duplicate, and a retry of the same publication is one.
func (p *Publisher) message(subject string, data []byte, c Commit, what, of string, expected uint64) *nats.Msg {
	id := c.Epoch + "/" + strconv.FormatInt(c.Revision, 10) + "/" + of
	m := nats.NewMsg(subject)
	m.Data = data
	m.Header.Set(jetstream.MsgIDHeader, id+"@"+strconv.FormatUint(expected, 10))
	m.Header.Set("ce-specversion", "1.0")
	m.Header.Set("ce-id", id)
	m.Header.Set("ce-source", "marchproxy/api")
	m.Header.Set("ce-type", "dev.marchproxy.config.v1."+what)
	m.Header.Set("ce-time", c.At)
	m.Header.Set("Content-Type", "application/json")
	if of != "" {
		m.Header.Set("ce-subject", of)
	}
	if c.Traceparent != "" {
		m.Header.Set("Traceparent", c.Traceparent)
	}
	return m
}

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
