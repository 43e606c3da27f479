package envoy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"sync"
	"time"

	"go.uber.org/zap"
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

// look asks Envoy, and where it is not ready finds out why.
func (s *Supervisor) look(ctx context.Context) (ready bool, reason string) {
	status, _, err := s.admin.do(ctx, http.MethodGet, "/ready")
	if err != nil {
		return false, "its admin interface on " + s.opt.Bootstrap.AdminAddr + " does not answer yet"
	}
	stats, err := s.admin.stats(ctx, `^(control_plane\.connected_state|listener_manager\.(total_listeners_active|total_listeners_warming|lds\.update_success|lds\.update_rejected))$`)
	if err != nil {
		return false, "its statistics cannot be read: " + err.Error()
	}
	connected, listeners := stats["control_plane.connected_state"] == 1, stats["listener_manager.total_listeners_active"]
	switch {
	case status == http.StatusOK && listeners > 0:
		return true, "" // also where the xDS server is away: Envoy serves what it has
	case !connected:
		return false, s.unconnected(ctx)
	case stats["listener_manager.lds.update_rejected"] > 0 && listeners == 0:
		return false, "it refused its listeners; the gateway's status in the API says why"
	case stats["listener_manager.total_listeners_warming"] > 0:
		return false, "its listeners wait for routes and secrets from the xDS server " + s.opt.Bootstrap.XDSServer
	case stats["listener_manager.lds.update_success"] > 0 && listeners == 0:
		return false, fmt.Sprintf("gateway %q has no listeners; give it one, or set GATEWAY to another", s.gateway())
	default:
		return false, fmt.Sprintf("it is connected to the xDS server %s and waits for the listeners of gateway %q", s.opt.Bootstrap.XDSServer, s.gateway())
	}
}

func (s *Supervisor) gateway() string {
	if s.opt.Bootstrap.Gateway == "" {
		return "default"
	}
	return s.opt.Bootstrap.Gateway
}

// unconnected says why there is no stream to the xDS server: it refused, or it cannot be reached.
func (s *Supervisor) unconnected(ctx context.Context) string {
	limit, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	server := s.opt.Bootstrap.XDSServer
	conn, err := (&net.Dialer{}).DialContext(limit, "tcp", server)
	if err != nil {
		return fmt.Sprintf("it cannot reach the xDS server: %v; check XDS_SERVER, and that marchproxy-xds runs", err)
	}
	_ = conn.Close() // it was only to see
	if code, text := s.xds.last(); code != "" {
		if code == permissionDenied || code == unauthenticated {
			return fmt.Sprintf("the xDS server %s refuses its key: %s", server, text)
		}
		return fmt.Sprintf("the xDS server %s ended its stream: %s", server, text)
	}
	return "it is connecting to the xDS server " + server
}

// gRPC's codes.
const (
	permissionDenied = "7"
	unauthenticated  = "16"
)

// closed is Envoy's line about the end of a stream, with its code and text.
var closed = regexp.MustCompile(`gRPC config stream (?:to \S+ )?closed(?: since \d+s ago)?: (\d+), (.*)`)

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
			if m := closed.FindSubmatch(r.line); m != nil {
				r.code, r.text = string(m[1]), string(m[2])
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
