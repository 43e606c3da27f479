package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// messages are what a session reads.
type messages interface {
	// Next waits for a message until the context ends.
	Next(ctx context.Context) (jetstream.Msg, error)
	Stop()
}

// open makes the consumers of a session: one, or one of each filter.
func open(ctx context.Context, st jetstream.Stream, filters []string, opt Options) (messages, error) {
	if opt.Apart == "" {
		it, err := begin(st.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
			DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubjects: filters, MaxResetAttempts: 1,
		}))(opt)
		if err != nil {
			return nil, err
		}
		return single{it}, nil
	}
	m := &several{out: make(chan got), done: make(chan struct{})}
	for _, f := range filters {
		it, err := begin(named(ctx, st, opt.Apart, f))(opt)
		if err != nil {
			m.Stop()
			return nil, err
		}
		m.all = append(m.all, it)
		go m.read(it)
	}
	return m, nil
}

// begin has a consumer deliver.
func begin(cons jetstream.Consumer, err error) func(opt Options) (jetstream.MessagesContext, error) {
	return func(opt Options) (jetstream.MessagesContext, error) {
		if err != nil {
			return nil, fmt.Errorf("no consumer: %w", err)
		}
		it, err := cons.Messages(jetstream.PullMaxMessages(1000), jetstream.PullHeartbeat(heartbeat(opt.Patience)))
		if err != nil {
			return nil, fmt.Errorf("no messages: %w", err)
		}
		return it, nil
	}
}

// ConsumerName is that of a consumer of a filter, where consumers are apart: edge-1-ratelimit.
func ConsumerName(prefix, filter string) string {
	return prefix + "-" + strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(filter, SubjectPrefix), "resource."),
		".*")
}

// unused is how long a consumer stays whose owner has gone.
const unused = 5 * time.Minute

// named makes a consumer by its name, anew where there is one from before. It acknowledges nothing: what is lost on
// the way shows by the hashes.
func named(ctx context.Context, st jetstream.Stream, prefix, filter string) (jetstream.Consumer, error) {
	name := ConsumerName(prefix, filter)
	if err := st.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, err
	}
	return st.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Name: name, FilterSubject: filter, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: unused, MemoryStorage: true, Replicas: 1,
	})
}

type single struct{ jetstream.MessagesContext }

// Next implements messages.
func (s single) Next(ctx context.Context) (jetstream.Msg, error) {
	return s.MessagesContext.Next(jetstream.NextContext(ctx))
}

// several are consumers whose messages come in the order in which they are read.
type several struct {
	all  []jetstream.MessagesContext
	out  chan got
	done chan struct{}
}

type got struct {
	m   jetstream.Msg
	err error
}

func (s *several) read(it jetstream.MessagesContext) {
	for {
		m, err := it.Next()
		select {
		case s.out <- got{m, err}:
		case <-s.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// Next implements messages.
func (s *several) Next(ctx context.Context) (jetstream.Msg, error) {
	select {
	case g := <-s.out:
		return g.m, g.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Stop implements messages.
func (s *several) Stop() {
	close(s.done)
	for _, it := range s.all {
		it.Stop()
	}
}
