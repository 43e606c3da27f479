package command

import (
	"fmt"
	"io"
	"sync"
)

// progress is the one line that says what a long command is doing: rewritten in place on a terminal, a
// line each with -v, nothing otherwise.
type progress struct {
	w        io.Writer
	terminal bool
	verbose  bool

	mu   sync.Mutex
	last string
}

func (c *cli) progress() *progress {
	return &progress{w: c.err, terminal: terminal(c.err), verbose: c.verbose}
}

// on says whether anybody looks.
func (p *progress) on() bool { return p.terminal || p.verbose }

func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if line == p.last {
		return
	}
	switch {
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%s", short(line, 100))
	case p.verbose:
		fmt.Fprintln(p.w, line)
	}
	p.last = line
}

// done takes the line away.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && p.last != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.last = ""
}
