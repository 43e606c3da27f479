package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/accesslog"
	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/tail"
)

// accessLog streams requests as the Envoys tell of them.
func (a *API) accessLog(c echo.Context) error {
	if a.Tail == nil {
		return wrong(http.StatusServiceUnavailable, "this api has no NATS, by which Envoys tell of requests")
	}
	who := actor(c).String()
	if err := a.followers.join(who); err != nil {
		return err
	}
	defer a.followers.leave(who)
	q := c.QueryParam
	w := &logWatcher{API: a, c: c, filter: accesslog.Filter{
		Gateway: q("gateway"), Proxy: q("proxy"), Host: q("host"), Route: q("route"), Status: q("status"),
		Method: q("method"), Path: q("path"),
	}}
	if err := w.admit(actor(c)); err != nil {
		return err
	}
	rc, err := stream(c)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(c.Request().Context())
	defer end()
	w.run(ctx, rc)
	return nil
}

// logWatcher is one client of GET /v1/access-log.
type logWatcher struct {
	*API
	c      echo.Context
	filter accesslog.Filter
	from   *tail.Watcher
	who    auth.Identity
	// seen is what was found out of what the client may see; a few thousand at most, and anew every few seconds.
	seen map[subject]bool
	last api.AccessLogState
}

// subject is what of an entry bounds are about.
type subject struct{ gateway, host, route string }

// maxSeen is how many of them are kept: clients of the proxy choose hosts.
const maxSeen = 4096

// stateEvery is how often it is looked whether Envoys tell.
const stateEvery = time.Second

// admit takes over who asks, and what they may see.
func (w *logWatcher) admit(who auth.Identity) error {
	v := auth.Check(who, auth.Operation{Role: auth.Viewer}, nil, nil, nil)
	if len(v) > 0 {
		return forbidden(v)
	}
	w.who, w.seen = who, map[subject]bool{}
	return nil
}

// run writes until the client is gone, the api ends, or the token does.
func (w *logWatcher) run(ctx context.Context, rc *http.ResponseController) {
	w.from = w.Tail.Watch(ctx, w.filter)
	deleted := w.followers.deleted.Wait()
	beat, again, state := time.NewTicker(heartbeat), time.NewTicker(lookAgain), time.NewTicker(stateEvery)
	defer beat.Stop()
	defer again.Stop()
	defer state.Stop()
	w.last.Proxies = -1 // so that the first one is told
	for {
		if rc.Flush() != nil {
			return
		}
		var err error
		select {
		case b := <-w.from.C:
			err = w.send(ctx, b)
		case <-state.C:
			err = w.state()
		case <-beat.C:
			_, err = fmt.Fprint(w.c.Response(), ":\n\n")
		case <-deleted:
			deleted = w.followers.deleted.Wait()
			err = w.welcome(ctx)
		case <-again.C:
			err = w.welcome(ctx)
		case <-ctx.Done():
			return
		case <-process.Stopping(ctx): // the client comes back, here or to another api
			return
		}
		if err != nil {
			return
		}
	}
}

// welcome looks who the client is now: the token may have ended, or its bounds be others. One that cannot be looked at is
// who it was.
func (w *logWatcher) welcome(ctx context.Context) error {
	who, err := w.Auth.Identify(ctx, credentials(w.c.Request()))
	if errors.Is(err, auth.ErrUnavailable) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.admit(who)
}

// send writes what the client may see.
func (w *logWatcher) send(ctx context.Context, b accesslog.Batch) error {
	if err := w.learn(ctx, b); err != nil {
		return err
	}
	for i := range b.Entries {
		if !w.seen[subjectOf(&b.Entries[i])] {
			continue
		}
		data, err := json.Marshal(b.Entries[i])
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w.c.Response(), "event: entry\ndata: %s\n\n", data); err != nil {
			return err
		}
	}
	return nil
}

func subjectOf(e *accesslog.Entry) subject {
	return subject{e.Gateway, accesslog.Host(e.Host), e.Route}
}

// learn finds out what of a batch the client may see.
func (w *logWatcher) learn(ctx context.Context, b accesslog.Batch) error {
	if len(w.seen) > maxSeen {
		clear(w.seen)
	}
	var unknown []subject
	for i := range b.Entries {
		s := subjectOf(&b.Entries[i])
		if _, known := w.seen[s]; !known && !slices.Contains(unknown, s) {
			unknown = append(unknown, s)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	if !w.bound() {
		for _, s := range unknown {
			w.seen[s] = true
		}
		return nil
	}
	return w.Writer.Read(ctx, func(st *config.State) {
		for _, s := range unknown {
			w.seen[s] = w.allows(st, s)
		}
	})
}

// bound says whether the client sees less than everything.
func (w *logWatcher) bound() bool {
	return !w.who.Bounds.Empty() || w.who.Of != nil && !w.who.Of.Bounds.Empty()
}

// allows says whether the client may see a request: whether a route of its gateway and host alone, and of the owner that
// the request's route has, would be within its bounds.
func (w *logWatcher) allows(st *config.State, s subject) bool {
	o, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: s.route}, &configv1.Route{
		Gateways: []string{s.gateway}, Hosts: []string{s.host},
	})
	if err != nil { // a host that is no text
		return false
	}
	if r := st.Get(o.Ref()); r != nil {
		o.Owner = r.Owner
	}
	return len(auth.Check(w.who, auth.Operation{Role: auth.Viewer, Reads: true}, st, nil, o)) == 0
}

// state writes whether Envoys tell, where that is otherwise than before.
func (w *logWatcher) state() error {
	told, dropped := w.from.Reports()
	now := api.AccessLogState{Share: 1, Dropped: int64(dropped)}
	for _, b := range told {
		if !w.watches(b.Gateway) {
			continue
		}
		now.Proxies++
		now.Share = min(now.Share, b.Share)
		if b.Reason != "" && (now.Reason == "" || b.Reason < now.Reason) {
			now.Reason = "Envoy " + b.Proxy + " tells nothing: " + b.Reason
		}
	}
	connected := int32(0)
	for gateway, n := range w.Board.Counts() {
		if (w.filter.Gateway == "" || w.filter.Gateway == gateway) && w.watches(gateway) {
			connected += n.Proxies
		}
	}
	if w.filter.Proxy != "" {
		connected = min(connected, 1)
	}
	now.Silent = max(0, connected-now.Proxies)
	if now == w.last {
		return nil
	}
	w.last = now
	data, err := json.Marshal(now)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w.c.Response(), "event: state\ndata: %s\n\n", data)
	return err
}

// watches says whether anything of a gateway is within the client's bounds.
func (w *logWatcher) watches(gateway string) bool {
	for who := &w.who; who != nil; who = who.Of {
		if b := who.Bounds.Gateways; len(b) > 0 && !slices.Contains(b, gateway) {
			return false
		}
	}
	return true
}
