package relay

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// spoken is after what time it is said what the relay is busy with, and how often.
var spoken = status.Long

// work is what the relay is busy with: done of total, which are 0 where nobody can say.
type work struct {
	what        string
	done, total int64
	since       time.Time
	timer       *time.Timer
	ended       bool
}

// busy says what the relay does from now on, until the function that it returns is called. It is spoken of where it
// takes long.
func (r *Relay) busy(what string, total int) (end func()) {
	w := &work{what: what, total: int64(total), since: time.Now()}
	r.mu.Lock()
	w.timer = time.AfterFunc(spoken, func() { r.speak(w) })
	r.work = append(r.work, w)
	depth := len(r.work)
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		w.ended = true
		w.timer.Stop()
		r.work = r.work[:depth-1]
		r.mu.Unlock()
		if took := time.Since(w.since); took > spoken {
			r.log.Info("done with "+what, zap.Duration("after", took.Round(time.Millisecond)))
			r.changed()
		}
	}
}

// at says how far that is.
func (r *Relay) at(done, _ int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.work); n > 0 {
		r.work[n-1].done = int64(done)
	}
}

func (r *Relay) speak(w *work) {
	r.mu.Lock()
	if w.ended { // while this waited for the lock: the timer must not begin again
		r.mu.Unlock()
		return
	}
	done := w.done
	w.timer.Reset(spoken)
	r.mu.Unlock()
	figures := ""
	if w.total > 0 {
		figures = fmt.Sprintf(": %d of %d", done, w.total)
	}
	// All of it in the message: lines that are the same are written once a minute.
	r.log.Warn(fmt.Sprintf("%s%s, for %s", w.what, figures, time.Since(w.since).Round(time.Millisecond)))
	r.changed()
}

func (r *Relay) changed() {
	if r.Changed != nil {
		r.Changed()
	}
}

// Progress is what the relay has been busy with for longer than five seconds; nil where nothing takes so long.
func (r *Relay) Progress() []api.Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.work) - 1; i >= 0; i-- {
		if w := r.work[i]; time.Since(w.since) >= spoken {
			return []api.Progress{{Who: "stream", What: w.what, Done: w.done, Total: w.total, Since: resource.Time(w.since)}}
		}
	}
	return nil
}
