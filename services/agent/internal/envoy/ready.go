package envoy

import (
	"context"
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
	e := envoyadmin.Envoy{Admin: s.admin, Server: b.XDSServer, Gateway: b.Gateway, Log: s.child.Log.Tail}
	ready, cause, reason := e.Look(ctx)
	switch cause {
	case envoyadmin.Unreachable:
		reason += "; check XDS_SERVER, and that marchproxy-xds runs"
	case envoyadmin.NoListeners:
		reason += "; give it one, or set GATEWAY to another"
	}
	return ready, reason
}
