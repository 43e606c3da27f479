package supervisor

import (
	"bytes"
	"io"
	"os"
	"sync"
)

// most is how much of a child's log is remembered, in bytes.
const most = 64 << 10

// Log is where what a child writes goes. It remembers the end of what the child has said since it was started last,
// which mostly tells why it ended.
type Log struct {
	// path is of a file; out is in its place.
	path string
	out  io.Writer

	mu sync.Mutex
	// from is where in the file the last start is.
	from int64
	tail []byte
}

// ToFile appends to a file, which is its user's alone. The child writes it itself, and goes on where its parent is
// halted (Ctrl-Z).
func ToFile(path string) *Log { return &Log{path: path} }

// Through passes on what the child writes. Of that its standard error alone is remembered: the standard output is out
// itself, where out is a file, and costs the parent nothing, however much it is.
func Through(out io.Writer) *Log { return &Log{out: out} }

// begin forgets what was said before, and returns where the next child writes to. shut is called when it was started.
func (l *Log) begin() (shut func(), stdout, stderr io.Writer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" {
		l.tail = l.tail[:0]
		return func() {}, l.out, (*remembering)(l), nil
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, nil, err
	}
	if info, err := f.Stat(); err == nil {
		l.from = info.Size()
	}
	return func() { _ = f.Close() }, f, f, nil
}

// remembering is the standard error of a child whose log is passed on.
type remembering Log

// Write implements [io.Writer].
func (r *remembering) Write(p []byte) (int, error) {
	r.mu.Lock()
	if r.tail = append(r.tail, p...); len(r.tail) > 2*most { // moved once in a while, not with each line
		r.tail = append(r.tail[:0], r.tail[len(r.tail)-most:]...)
	}
	r.mu.Unlock()
	return r.out.Write(p)
}

// Tail is the end of what the child has said since it was started last, at most 64 KiB; nil where it cannot be read.
func (l *Log) Tail() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" {
		return bytes.Clone(l.tail[max(0, len(l.tail)-most):])
	}
	f, err := os.Open(l.path)
	if err != nil {
		return nil // it has said nothing yet
	}
	defer func() { _ = f.Close() }() // read only
	from := l.from
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-most)
	}
	raw, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if err != nil {
		return nil
	}
	return raw
}

// LastLine is the last line of [Log.Tail]; "" where there is none.
func (l *Log) LastLine() string {
	raw := bytes.TrimSpace(l.Tail())
	return string(raw[bytes.LastIndexByte(raw, '\n')+1:])
}
