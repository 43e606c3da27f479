package docker

import (
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stop is how a container is stopped, as far as that is known. No list says it, and no event.
type stop struct {
	known bool
	// signal is the one that it is told to end by.
	signal syscall.Signal
	// timeout is how long it may then take before it is killed; below 0 for ever.
	timeout time.Duration
}

const (
	// shortest is how long a container drains at the least, after which it is taken for one that has used the signal for
	// something else.
	shortest = 30 * time.Second
	// late is how much longer than it may a container takes to end, because the engine is busy.
	late = 10 * time.Second
	// forever is longer than any container waits for its end.
	forever = 365 * 24 * time.Hour
	// engines is what an engine gives a container that says nothing.
	engines = 10 * time.Second
)

// signals that end a program, whatever its image says. QUIT is not among them: Java writes down its threads.
var signals = []syscall.Signal{unix.SIGINT, unix.SIGKILL, unix.SIGTERM}

// ends says whether a signal tells the container to end. Where it is not known how it is told, QUIT does, as nginx' image
// has it.
func (s stop) ends(signal string) bool {
	n := signalOf(signal)
	if n == 0 {
		return false
	}
	also := s.signal
	if !s.known {
		also = unix.SIGQUIT
	}
	return slices.Contains(signals, n) || n == also
}

// until is when a container that was told to end now, and is still there, takes requests again.
func (s stop) until(now time.Time) time.Time {
	if s.timeout < 0 {
		return now.Add(forever)
	}
	return now.Add(max(shortest, s.timeout+late))
}

// signalOf reads 15, TERM, SIGTERM and RTMIN+3; 0 for what is none.
func signalOf(text string) syscall.Signal {
	if n, err := strconv.Atoi(text); err == nil {
		return syscall.Signal(max(0, n))
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	const first, last = 34, 64 // as the C library has them
	if plus, ok := strings.CutPrefix(name, "RTMIN"); ok {
		n, _ := strconv.Atoi(plus) // RTMIN alone is the first
		return syscall.Signal(first + n)
	}
	if minus, ok := strings.CutPrefix(name, "RTMAX"); ok {
		n, _ := strconv.Atoi(minus)
		return syscall.Signal(last + n)
	}
	return unix.SignalNum("SIG" + name)
}
