package stream

import (
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Progress is what a consumer does that is behind the stream.
type Progress struct {
	What string
	// Done of Total messages or objects; Done is 0 where nobody can say.
	Done, Total int64
	Since       time.Time
}

// meter says how far a consumer is that is behind for long ([status.Long]), and again each such time: it reads, or
// takes over what it has read.
type meter struct {
	log   *zap.Logger
	tell  func(*Progress)
	every time.Duration

	mu    sync.Mutex
	now   Progress // Since is zero where it is not behind
	read  int64    // since then
	said  bool
	timer *time.Timer
}

// message counts one that was read, with so many behind it.
func (m *meter) message(pending uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if pending == 0 && m.now.Since.IsZero() {
		return
	}
	m.begin()
	m.read++
	m.now.What, m.now.Done, m.now.Total = "reading the configuration's events", m.read, m.read+int64(pending)
}

// takes says that the consumer takes over a revision, which changes so many objects.
func (m *meter) takes(revision int64, objects int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin()
	m.now.What, m.now.Done, m.now.Total = fmt.Sprintf("taking over revision %d", revision), 0, int64(objects)
}

// begin has the meter run; the lock must be held.
func (m *meter) begin() {
	if !m.now.Since.IsZero() {
		return
	}
	m.now.Since, m.read = time.Now(), 0
	if m.timer == nil {
		m.timer = time.AfterFunc(m.every, m.speak)
	} else {
		m.timer.Reset(m.every)
	}
}

// done says that what was read is done, with so many messages behind it.
func (m *meter) done(pending uint64) {
	m.mu.Lock()
	if pending > 0 || m.now.Since.IsZero() {
		m.mu.Unlock()
		return
	}
	m.timer.Stop()
	since, said := m.now.Since, m.said
	m.now, m.said = Progress{}, false
	m.mu.Unlock()
	if said {
		m.log.Info("up to the configuration's stream again", zap.Duration("after", time.Since(since).Round(time.Millisecond)))
		m.say(nil)
	}
}

func (m *meter) speak() {
	m.mu.Lock()
	now := m.now
	if now.Since.IsZero() {
		m.mu.Unlock()
		return
	}
	m.said = true
	m.timer.Reset(m.every)
	m.mu.Unlock()
	// All of it in the message: lines that are the same are written once a minute.
	m.log.Warn(fmt.Sprintf("behind the configuration's stream for %s, %s: %d of %d",
		time.Since(now.Since).Round(time.Millisecond), now.What, now.Done, now.Total))
	m.say(&now)
}

func (m *meter) say(p *Progress) {
	if m.tell != nil {
		m.tell(p)
	}
}
