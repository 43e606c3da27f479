package stream

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Fault is why the stream takes no messages.
type Fault struct {
	// Reason in words.
	Reason string
	// Stuck says that NATS answers, and reads, and refuses every write of the stream: after an error of its disk it
	// goes on doing so when there is room again, until it is restarted or the stream is made anew ([Remake]).
	Stuck bool
	// Room says that NATS can write to its disk again, though the stream cannot.
	Room bool
}

// Error is the reason.
func (f *Fault) Error() string { return f.Reason }

// Diagnose asks NATS why the stream takes no messages; nil where nothing seems to be wrong. It changes nothing but
// the stream's settings, where they are not as they should be. It waits as long as the context lasts.
//
// NATS does not answer what it cannot store. But to store the stream's settings again tells whether it can write at
// all, and a purge of a subject that nobody uses whether the stream can: both answer in the disk's own words.
func Diagnose(ctx context.Context, js jetstream.JetStream) *Fault {
	if !js.Conn().IsConnected() {
		return &Fault{Reason: "NATS does not answer"}
	}
	s, err := js.Stream(ctx, Name)
	if err == nil {
		s, err = Ensure(ctx, js)
		var api jetstream.JetStreamError
		if err != nil && errors.As(err, &api) && api.APIError() != nil && api.APIError().ErrorCode == updateFailed {
			return &Fault{Reason: "NATS cannot write to its disk: " + words(api.APIError().Description), Stuck: true}
		}
	}
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return &Fault{Reason: "the stream is gone"}
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, nats.ErrNoResponders):
		return &Fault{Reason: "JetStream is off at the NATS server, which turns it off after errors of its disk: see its " +
			"log, and restart it"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return &Fault{Reason: "NATS's JetStream does not answer"}
	case err != nil:
		return &Fault{Reason: err.Error()}
	}
	var api jetstream.JetStreamError
	if err := s.Purge(ctx, jetstream.WithPurgeSubject(SubjectPrefix+"nobody")); errors.As(err, &api) &&
		api.APIError() != nil {
		return &Fault{
			Reason: "NATS takes no messages since its disk failed: " + words(api.APIError().Description),
			Stuck:  true, Room: true,
		}
	}
	return nil
}

// updateFailed is the code of settings that could not be stored.
const updateFailed = 10069

// operation is how Go's errors of files begin; what follows the path is for people.
var operation = regexp.MustCompile(`^(open|write|mkdir|sync|fsync|rename|truncate|close) /[^:]*: `)

// words leaves out the path, which is another machine's.
func words(description string) string { return operation.ReplaceAllString(description, "") }

// ErrConsumers says that a stream is not made anew because somebody's durable consumers would go with it.
var ErrConsumers = errors.New("it has durable consumers, which would be lost if it were made anew")

// Remake deletes the stream and makes it anew, empty: whoever holds the truth publishes it again, and who follows
// finds nothing changed. Where it has durable consumers the error is [ErrConsumers], and nothing is done.
func Remake(ctx context.Context, js jetstream.JetStream) error {
	s, err := js.Stream(ctx, Name)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("make the stream anew: %w", err)
	}
	if err == nil {
		all := s.ListConsumers(ctx)
		for c := range all.Info() {
			if c.Config.Durable != "" {
				return fmt.Errorf("%w (%s)", ErrConsumers, c.Name)
			}
		}
		if err := all.Err(); err != nil {
			return fmt.Errorf("make the stream anew: %w", err)
		}
		if err := js.DeleteStream(ctx, Name); err != nil {
			return fmt.Errorf("make the stream anew: %w", err)
		}
	}
	_, err = Ensure(ctx, js)
	return err
}
