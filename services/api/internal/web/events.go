package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
)

// Signal wakes everybody who waits for it.
type Signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// Raise wakes those who wait.
func (s *Signal) Raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// Wait returns what is closed by the next [Signal.Raise].
func (s *Signal) Wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// heartbeat keeps proxies from closing a quiet stream of events.
const heartbeat = 15 * time.Second

// lookAgain is how often a stream's token is looked at again: it may have ended, or been deleted at another api. Here a
// deletion ends its streams at once.
const lookAgain = 5 * time.Second

// follower is one client of GET /v1/events.
type follower struct {
	*API
	c      echo.Context
	last   int64
	status string
}

// events streams revisions from the database, where all of them are, so that a client misses none however
// long it was away; and the Envoys' state as it changes.
func (a *API) events(c echo.Context) error {
	ctx := c.Request().Context()
	who := actor(c).String()
	if err := a.followers.join(who); err != nil {
		return err
	}
	defer a.followers.leave(who)
	head, err := a.Store.Head(ctx)
	if err != nil {
		return err
	}
	f := &follower{API: a, c: c, last: head.Revision}
	if id := c.Request().Header.Get("Last-Event-ID"); id != "" {
		if f.last, err = number(id); err != nil {
			return err
		}
		// A revision that is not there yet belongs to a database that has since been restored from an
		// older backup: such a client goes on from here.
		f.last = min(f.last, head.Revision)
	}
	rc, err := stream(c)
	if err != nil {
		return err
	}
	committed, deleted := a.Committed.Wait(), a.followers.deleted.Wait()
	if err := f.sendRevisions(); err != nil {
		return nil // as below
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		reported := a.Board.Changed()
		if err := f.sendStatus(); err != nil {
			return nil // the client is gone
		}
		if err := rc.Flush(); err != nil {
			return nil // the client is gone
		}
		var look bool
		select {
		case <-committed:
			committed, look = a.Committed.Wait(), true
		case <-reported: // the database is not asked at each of them
			look = max(a.Published(), a.Writer.Revision()) > f.last
		case <-deleted:
			deleted = a.followers.deleted.Wait()
			if !f.welcome() {
				return nil
			}
		case <-again.C:
			if !f.welcome() {
				return nil
			}
		case <-beat.C:
			fmt.Fprint(c.Response(), ":\n\n")
			look = true
		case <-ctx.Done():
			return nil
		case <-process.Stopping(ctx): // the client comes back, here or to another api
			return nil
		}
		if look {
			if err := f.sendRevisions(); err != nil {
				return nil // the client is gone, or the database is: the client comes back with its last id
			}
		}
	}
}

// stream begins an answer of server-sent events, which may last.
func stream(c echo.Context) (*http.ResponseController, error) {
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(c.Response())
	if err := rc.SetWriteDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("stream events: %w", err)
	}
	c.Response().WriteHeader(http.StatusOK)
	fmt.Fprint(c.Response(), "retry: 1000\n\n")
	return rc, nil
}

// welcome says whether the token or session that the stream began with still opens it. One that cannot be looked at
// does: the database will be back, and nothing is sent from it meanwhile.
func (f *follower) welcome() bool {
	r := f.c.Request()
	_, err := f.Auth.Identify(r.Context(), credentials(r))
	return err == nil || errors.Is(err, auth.ErrUnavailable)
}

// sendRevisions writes the revisions that are new.
func (f *follower) sendRevisions() error {
	ctx := f.c.Request().Context()
	for {
		rows, err := f.Store.RevisionsAfter(ctx, f.last, 100)
		if err != nil {
			return err
		}
		for _, r := range rows {
			data, err := json.Marshal(r)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(f.c.Response(), "event: revision\nid: %d\ndata: %s\n\n", r.Revision, data); err != nil {
				return err
			}
			f.last = r.Revision
		}
		if len(rows) < 100 {
			return nil
		}
	}
}

// sendStatus writes the Envoys' state where it is another one.
func (f *follower) sendStatus() error {
	sum := f.Board.Summary()
	now := api.LiveStatus{
		LiveRevision: sum.Live, Proxies: sum.Proxies, Rejected: sum.Rejected, RejectedObjects: sum.RejectedObjects,
		Troubles: f.troubles(),
		Progress: append(f.progress(), sum.Progress...), LaggingProxies: sum.LaggingProxies,
	}
	_, now.UnresolvedNames = f.unresolved(0)
	data, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if string(data) == f.status {
		return nil
	}
	f.status = string(data)
	_, err = fmt.Fprintf(f.c.Response(), "event: status\ndata: %s\n\n", data)
	return err
}
