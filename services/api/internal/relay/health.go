package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

const (
	// brief is how long a failure is not spoken of that mostly heals itself: NATS is restarted, say.
	brief = 2 * time.Second
	// slow is how long a publication may take before somebody looks at what is wrong. NATS does not answer what it
	// cannot store.
	slow = time.Second
	// diagnosis is how long that look may take.
	diagnosis = 2 * time.Second
	// remakeAfter is how long a stream that is stuck is left to whoever may restart NATS, from when there is room:
	// that keeps the stream's history and its consumers, which end where it is made anew.
	remakeAfter = 10 * time.Second
)

// Trouble is why what is stored is not published.
type Trouble struct {
	Reason string
	Since  time.Time
}

// health is what the relay knows of the stream's faults.
type health struct {
	trouble Trouble
	stuck   bool
	room    time.Time // since when a stuck stream's disk has had room
}

// errAway is said at once: what is asked of a NATS that is away is answered with silence, after five seconds.
var errAway = errors.New("NATS does not answer")

func (r *Relay) away() bool { return !r.js.Conn().IsConnected() }

// Trouble says why what is stored is not published; not ok where nothing is known to be wrong.
func (r *Relay) Trouble() (Trouble, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.health.trouble
	return t, t.Reason != "" && (r.health.stuck || time.Since(t.Since) > brief)
}

// fault takes note of why nothing is published; "" for nothing.
func (r *Relay) fault(reason string, stuck bool) {
	r.mu.Lock()
	was := r.health.trouble
	if reason == "" {
		r.health = health{}
	} else {
		r.health.trouble = Trouble{Reason: reason, Since: was.Since}
		r.health.stuck = stuck
		if was.Reason == "" {
			r.health.trouble.Since = time.Now()
		}
	}
	r.mu.Unlock()
	if was.Reason == reason {
		return
	}
	if reason == "" {
		r.log.Info("publishing goes on", zap.Duration("after", time.Since(was.Since).Round(time.Millisecond)))
	}
	if r.Changed != nil {
		r.Changed()
		if reason != "" && !stuck { // it will be spoken of then
			time.AfterFunc(brief+time.Millisecond, r.Changed)
		}
	}
}

// failed finds out why publishing has stopped, says so, and does what can be done.
func (r *Relay) failed(ctx context.Context, err error) {
	f := r.diagnose(ctx)
	switch {
	case f != nil:
		r.fault(f.Reason, f.Stuck)
		r.log.Error("changes are stored, but not published: "+f.Reason, zap.Error(err))
	case r.store.Ping(ctx) != nil: // then it is not the stream that is ill
		r.log.Warn("publishing has stopped; trying again", zap.Error(err))
	case errors.Is(err, stream.ErrLastSequence):
		r.fault("somebody else publishes to the stream", false)
		r.log.Warn("publishing has stopped; trying again", zap.Error(err))
	default:
		r.fault(err.Error(), false)
		r.log.Warn("publishing has stopped; trying again", zap.Error(err))
	}
	r.remake(ctx, f)
}

func (r *Relay) diagnose(ctx context.Context) *stream.Fault {
	limit, cancel := context.WithTimeout(ctx, diagnosis)
	defer cancel()
	f := stream.Diagnose(limit, r.js)
	if ctx.Err() != nil {
		return nil
	}
	return f
}

// remake makes a stream anew that stays stuck although there is room: everything is published again.
func (r *Relay) remake(ctx context.Context, f *stream.Fault) {
	r.mu.Lock()
	if f == nil || !f.Stuck || !f.Room {
		r.health.room = time.Time{}
	} else if r.health.room.IsZero() {
		r.health.room = time.Now()
	}
	since := r.health.room
	r.mu.Unlock()
	if since.IsZero() || time.Since(since) < remakeAfter {
		return
	}
	switch err := stream.Remake(ctx, r.js); {
	case errors.Is(err, stream.ErrConsumers):
		r.fault(f.Reason+". There is room again: restart NATS. The stream is not made anew by itself: "+err.Error(), true)
	case err != nil:
		r.log.Error("the stream cannot be made anew", zap.Error(err))
	default:
		r.log.Warn("the stream is made anew, since it has taken no messages although there is room on the disk")
	}
	r.mu.Lock()
	r.health.room = time.Time{} // the next attempt gives whoever restarts NATS the same time
	r.mu.Unlock()
}

// watched runs a publication and looks after a while why it takes so long: nobody says so otherwise. What a stuck
// stream will not answer is not waited for.
func (r *Relay) watched(ctx context.Context, publish func(context.Context) (uint64, error)) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := time.AfterFunc(slow, func() {
		if f := r.diagnose(ctx); f != nil {
			r.fault(f.Reason, f.Stuck)
			if f.Stuck {
				cancel()
			}
		}
	})
	defer watch.Stop()
	return publish(ctx)
}

// behindLeader says why what is stored is not published where another api leads.
func (r *Relay) behindLeader(ctx context.Context, c resource.Commit, head store.Head) {
	if c.Epoch == head.Epoch && c.Revision >= head.Revision {
		r.lags = time.Time{}
		r.fault("", false)
		return
	}
	if r.lags.IsZero() {
		r.lags = time.Now()
	}
	if time.Since(r.lags) < brief {
		return
	}
	if f := r.diagnose(ctx); f != nil {
		r.fault(f.Reason, f.Stuck)
		r.log.Error("changes are stored, but not published: " + f.Reason)
	} else if time.Since(r.lags) > 5*brief {
		r.fault(fmt.Sprintf("the api that publishes is at revision %d; its log says why", c.Revision), false)
	}
}
