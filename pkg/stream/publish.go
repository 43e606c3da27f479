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

// A larger transaction goes in legs of so many messages and bytes, each with one answer, of which so many may be
// outstanding: what is on its way stays far below what the server queues for a stream (100,000 messages and 128 MB).
const (
	leg      = 64
	legBytes = 256 << 10
	ahead    = 32
)

// Publisher writes to the stream. One at a time may: the expected sequence sees to it.
type Publisher struct {
	js jetstream.JetStream
	// Progress, where it is set, is called in the course of a transaction that does not fit into a batch: how many of
	// its objects the server has stored.
	Progress func(done, of int)
}

// NewPublisher returns a publisher; the stream must exist (see [Ensure]).
func NewPublisher(js jetstream.JetStream) *Publisher { return &Publisher{js: js} }

// Publish writes the objects of a transaction (tombstones included) and its commit, as one atomic batch
// where they fit, and returns the sequence of the commit. The stream's last sequence must be expected,
// otherwise nothing is written and the error is [ErrLastSequence].
func (p *Publisher) Publish(
	ctx context.Context, objects []*resource.Object, c resource.Commit, expected uint64,
) (uint64, error) {
	if len(c.Changes) > resource.MaxChanges {
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

func (p *Publisher) batch(
	ctx context.Context, objects []*resource.Object, c resource.Commit, last *nats.Msg, expected uint64,
) (uint64, error) {
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
//
// Only the last message of each leg has an answer, and it expects the sequence that the messages before it
// lead to: so it speaks for all of them, and where one is missing, or somebody else's is between them, the
// publication ends with [ErrLastSequence]. Answers are waited for only where more than ahead legs lack theirs.
func (p *Publisher) pipeline(
	ctx context.Context, objects []*resource.Object, c resource.Commit, last *nats.Msg, expected uint64,
) (uint64, error) {
	var legs []sent
	told := 0
	take := func() error {
		l := legs[0]
		legs = legs[1:]
		select {
		case <-l.ack.Ok():
			told = l.end
			p.progress(told, len(objects))
			return nil
		case err := <-l.ack.Err():
			return publishError(err)
		case <-ctx.Done():
			return fmt.Errorf("publish: %w", context.Cause(ctx))
		}
	}
	for i, size := 0, 0; i < len(objects); i++ {
		m := p.resource(objects[i], c, expected)
		size += len(m.Data)
		// The first goes alone: where it is refused nothing else may be written.
		if i > 0 && i < len(objects)-1 && i%leg != 0 && size < legBytes {
			if err := p.js.Conn().PublishMsg(m); err != nil {
				return expected + uint64(told), publishError(err)
			}
			continue
		}
		size = 0
		m.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(expected+uint64(i), 10))
		ack, err := p.js.PublishMsgAsync(m)
		if err != nil {
			return expected + uint64(told), publishError(err)
		}
		legs = append(legs, sent{ack, i + 1})
		for i == 0 && len(legs) > 0 || len(legs) > ahead {
			if err := take(); err != nil {
				return expected + uint64(told), err
			}
		}
	}
	for len(legs) > 0 {
		if err := take(); err != nil {
			return expected + uint64(told), err
		}
	}
	last.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(expected+uint64(len(objects)), 10))
	ack, err := p.js.PublishMsg(ctx, last)
	if err != nil {
		return expected + uint64(len(objects)), publishError(err)
	}
	return ack.Sequence, nil
}

// sent is a message whose answer speaks for all objects before the end.
type sent struct {
	ack jetstream.PubAckFuture
	end int
}

func (p *Publisher) progress(done, of int) {
	if p.Progress != nil {
		p.Progress(done, of)
	}
}

func publishError(err error) error {
	if isLastSequence(err) {
		return ErrLastSequence
	}
	return fmt.Errorf("publish: %w", err)
}

func (p *Publisher) resource(o *resource.Object, c resource.Commit, expected uint64) *nats.Msg {
	m := p.message(Subject(o.Ref()), o.Payload(), c, "resource", o.Ref().String(), expected)
	if o.Deleted {
		m.Header.Set("ce-type", "dev.marchproxy.config.v1.deleted")
		m.Header.Set(jetstream.MsgTTLHeader, tombstoneTTL.String())
	}
	return m
}

// message makes a message with CloudEvents attributes. Its id holds the place in the stream, so that a
// repair after a purge is no duplicate, and a retry of the same publication is one.
func (p *Publisher) message(
	subject string, data []byte, c resource.Commit, what, of string, expected uint64,
) *nats.Msg {
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
