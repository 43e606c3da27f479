package envoy

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
)

// watch keeps the state up to date, and says in one line why Envoy is not ready: at once when the reason
// changes, and each half minute.
func (s *Supervisor) watch(ctx context.Context) {
	began, last, lastReason := time.Now(), time.Time{}, ""
	for {
		ready, reason := s.look(ctx)
		if ctx.Err() != nil {
			return
		}
		was := s.State()
		s.set(func(st *State) { st.Ready, st.Reason = ready, reason })
		switch {
		case ready && !was.Ready:
			s.opt.Log.Info("envoy is ready", zap.Duration("after", time.Since(began)))
			last = time.Time{}
		case !ready && time.Since(began) > time.Second && (reason != lastReason || time.Since(last) > 30*time.Second):
			s.opt.Log.Warn("envoy is not ready: " + reason)
			last, lastReason = time.Now(), reason
		}
		pause := 100 * time.Millisecond
		if ready {
			pause = time.Second
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// look asks Envoy, and where it is not ready finds out why, and what can be done.
func (s *Supervisor) look(ctx context.Context) (ready bool, reason string) {
	b := s.opt.Bootstrap
	e := envoyadmin.Envoy{Admin: s.admin, Server: b.XDSServer, Gateway: b.Gateway, Ended: s.xds.last}
	ready, cause, reason := e.Look(ctx)
	switch cause {
	case envoyadmin.Unreachable:
		reason += "; check XDS_SERVER, and that marchproxy-xds runs"
	case envoyadmin.NoListeners:
		reason += "; give it one, or set GATEWAY to another"
	}
	return ready, reason
}

// rejection passes on what Envoy logs, and remembers why its stream to the xDS server was closed last:
// statistics do not tell.
type rejection struct {
	out io.Writer

	mu         sync.Mutex
	line       []byte
	code, text string
}

const longestLine = 4096

func (r *rejection) Write(p []byte) (int, error) {
	r.mu.Lock()
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte("\n"))
		if len(r.line)+len(part) <= longestLine {
			r.line = append(r.line, part...)
		}
		if rest = after; ended {
			if code, text := envoyadmin.StreamEnd(r.line); code != "" {
				r.code, r.text = code, text
			}
			r.line = r.line[:0]
		}
	}
	r.mu.Unlock()
	return r.out.Write(p)
}

func (r *rejection) last() (code, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.code, r.text
}

func (r *rejection) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.code, r.text, r.line = "", "", r.line[:0]
}
