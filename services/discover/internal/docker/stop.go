package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marchproxy/marchproxy/pkg/labels"
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

// inspected is what is read of a container's own answer, and all that [Filter] lets through of it: the rest has the
// container's environment, and so its secrets.
type inspected struct {
	Config struct {
		StopSignal  string `json:",omitempty"`
		StopTimeout *int   `json:",omitempty"`
	}
}

// learn asks how the containers are stopped of which that is not known. A filter between that refuses this leaves what
// engines do by themselves.
func (d *Docker) learn(ctx context.Context, all []Container) {
	if !d.learning.TryLock() {
		return // the next list has them as well
	}
	defer d.learning.Unlock()
	for _, c := range all {
		d.mu.Lock()
		_, known := d.stops[c.ID]
		d.mu.Unlock()
		if known || c.State != "running" || !labels.ReadBasics(c.Labels).Enabled {
			continue
		}
		how, err := d.inspect(ctx, c.ID)
		if err != nil {
			return // what is wrong with the engine is said by others
		}
		d.mu.Lock()
		d.stops[c.ID] = how
		d.mu.Unlock()
	}
}

func (d *Docker) inspect(ctx context.Context, id string) (stop, error) {
	ctx, cancel := context.WithTimeout(ctx, d.opt.Patience)
	defer cancel()
	body, err := d.get(ctx, "/containers/"+id+"/json", nil)
	var answered *statusError
	if errors.As(err, &answered) && answered.status < http.StatusInternalServerError {
		return stop{}, nil // it is gone, or a filter does not let this through
	}
	if err != nil {
		return stop{}, err
	}
	defer func() { _ = body.Close() }()
	var is inspected
	if err := json.NewDecoder(io.LimitReader(body, maxInspect)).Decode(&is); err != nil {
		return stop{}, err
	}
	out := stop{known: true, signal: unix.SIGTERM, timeout: engines}
	if s := is.Config.StopSignal; s != "" {
		out.signal = signalOf(s)
	}
	if t := is.Config.StopTimeout; t != nil {
		out.timeout = time.Duration(*t) * time.Second
	}
	return out, nil
}

// maxInspect is how large the answer about one container may be.
const maxInspect = 4 << 20
