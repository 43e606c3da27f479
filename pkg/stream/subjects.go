package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/bus"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Name of the JetStream stream, and its subjects.
const (
	Name            = "MARCHPROXY_CONFIG"
	SubjectPrefix   = "marchproxy.config.v1."
	ResourcePrefix  = SubjectPrefix + "resource."
	RevisionSubject = SubjectPrefix + "revision"
)

// perSubject is how many messages of a subject are kept. With one, a message replaces the one before it, so that a
// tombstone costs what any other message does and nothing is below it that could show when it expires: with more, the
// tombstone had to purge its subject, which took the server 8 to 16 ms each (docs/adr/0016).
const perSubject = 1

// tombstoneTTL is how long a deleted name stays in the stream. A consumer that was away for longer sees
// unequal hashes and replays.
const tombstoneTTL = 24 * time.Hour

// Subject is where a resource's events go.
func Subject(r resource.Ref) string {
	k, ok := resource.KindByName(r.Kind)
	if !ok {
		panic(fmt.Sprintf("stream: unknown kind %q", r.Kind))
	}
	return ResourcePrefix + k.Token + "." + r.Name
}

// KindSubjects are the subjects of a kind's resources.
func KindSubjects(kind string) string {
	k, ok := resource.KindByName(kind)
	if !ok {
		panic(fmt.Sprintf("stream: unknown kind %q", kind))
	}
	return ResourcePrefix + k.Token + ".*"
}

// refOf is whose events go to a subject.
func refOf(subject string) (resource.Ref, bool) {
	rest, _ := strings.CutPrefix(subject, ResourcePrefix)
	token, name, _ := strings.Cut(rest, ".")
	k, ok := resource.KindByToken(token)
	return resource.Ref{Kind: k.Name, Name: name}, ok
}

// Ensure creates the stream, or gives an existing one the settings that it should have.
func Ensure(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	s, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:               Name,
		Description:        "MarchProxy's configuration; docs/events.md",
		Subjects:           []string{SubjectPrefix + ">"},
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardOld,
		MaxMsgsPerSubject:  perSubject,
		Duplicates:         2 * time.Minute,
		AllowAtomicPublish: true,
		AllowMsgTTL:        true,
		AllowRollup:        true, // for an api of an older version beside this one, while both run
		AllowDirect:        true,
		Replicas:           bus.Replicas(ctx, js, Name),
	})
	if err != nil {
		return nil, fmt.Errorf("ensure stream: %w", err)
	}
	return s, nil
}

// ErrLastSequence says that somebody else has published in the meantime.
var ErrLastSequence = errors.New("the stream's last sequence is another")

func isLastSequence(err error) bool {
	var api jetstream.JetStreamError
	if !errors.As(err, &api) || api.APIError() == nil {
		return false
	}
	switch api.APIError().ErrorCode {
	case 10071, 10164: // the latter on replicated streams
		return true
	case 10070: // the object before a commit was not stored
		return true
	case 10201: // a batch sent again: its message ids hold the sequence that it expects, which is past
		return true
	}
	return false
}
