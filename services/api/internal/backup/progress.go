package backup

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// quiet is for how long nobody wonders what is going on.
	quiet = 3 * time.Second
	// every is how often it is said then: on a terminal the line is rewritten, elsewhere it is one more.
	every, everyLine = time.Second / 4, 10 * time.Second
)

// progress says what is being done, and how far it has come. What is read or written is told it by [progress.Write].
type progress struct {
	to       io.Writer
	terminal bool
	whole    int64 // bytes that there are; 0 where that is not known

	mu    sync.Mutex
	what  string
	bytes int64
	began time.Time
	last  time.Time
	shown bool
}

func newProgress(to io.Writer, terminal bool, whole int64) *progress {
	return &progress{to: to, terminal: terminal, whole: whole, what: "preparing", began: time.Now()}
}

// begin says what is done from now on.
func (p *progress) begin(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = what
	p.say(false)
}

// Write counts; it is never an error.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += int64(len(b))
	p.say(false)
	return len(b), nil
}

// watch says it too while nothing comes, until the channel is closed.
func (p *progress) watch(done <-chan struct{}) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.mu.Lock()
			p.say(false)
			p.mu.Unlock()
		case <-done:
			p.mu.Lock()
			p.say(true)
			p.mu.Unlock()
			return
		}
	}
}

func (p *progress) say(over bool) {
	now := time.Now()
	pause := everyLine
	if p.terminal {
		pause = every
	}
	switch {
	case over && p.shown && p.terminal:
		fmt.Fprint(p.to, "\r\x1b[K")
	case over, now.Sub(p.began) < quiet, now.Sub(p.last) < pause:
	default:
		far := fmt.Sprintf("%d MB", p.bytes>>20)
		if p.whole > 0 {
			far = fmt.Sprintf("%d %%", 100*p.bytes/p.whole)
		}
		text := fmt.Sprintf("%s: %s after %v", p.what, far, now.Sub(p.began).Round(time.Second))
		if p.terminal {
			fmt.Fprint(p.to, "\r\x1b[K"+text)
		} else {
			fmt.Fprintln(p.to, text)
		}
		p.last, p.shown = now, true
	}
}
