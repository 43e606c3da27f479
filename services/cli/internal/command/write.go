package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

// waiting are the flags of commands that write.
type waiting struct {
	wait    bool
	timeout time.Duration
}

// maxWait is the longest that the api waits.
const maxWait = time.Minute

func (w *waiting) flags(f *pflag.FlagSet) {
	f.BoolVar(&w.wait, "wait", false, "return when every connected Envoy concerned serves it; exit code 3 where one "+
		"refuses it or does not in time")
	f.DurationVar(&w.timeout, "timeout", 30*time.Second, "how long to --wait, at most 1m")
}

func (w *waiting) query() (url.Values, error) {
	q := url.Values{}
	if !w.wait {
		return q, nil
	}
	if w.timeout < time.Millisecond || w.timeout > maxWait {
		return nil, fmt.Errorf("--timeout is %s; it must be from 1ms to %s", w.timeout, maxWait)
	}
	q.Set("wait", "live")
	q.Set("timeout", w.timeout.String())
	return q, nil
}

// write sends a write and, where it is waited for, says how far it has come.
func (c *cli) write(ctx context.Context, a *client.Client, p *progress, w waiting, r client.Request, into any) error {
	defer p.done()
	if w.wait && p.on() {
		watch, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			follow(watch, a, p)
		}()
		defer func() { stop(); <-done }()
	}
	_, err := a.Do(ctx, r, into)
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted; the change may have been made all the same: marchproxy revisions shows it")
	}
	return err
}

// follow looks at the Envoys from time to time.
func follow(ctx context.Context, a *client.Client, p *progress) {
	for pause := 300 * time.Millisecond; ; pause = 200 * time.Millisecond {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		var s api.Status
		var all api.ProxyList
		if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/status"}, &s); err != nil {
			continue
		}
		if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/proxies"}, &all); err != nil {
			continue
		}
		live, there := 0, 0
		for _, x := range all.Items {
			if !x.Connected {
				continue
			}
			if there++; x.AppliedRevision >= s.Revision {
				live++
			}
		}
		if i := slices.IndexFunc(s.Troubles, func(t api.Trouble) bool { return t.Part == "stream" }); i >= 0 {
			p.say("waiting for live: revision %d is stored, but not published: %s", s.Revision, s.Troubles[i].Reason)
			continue
		}
		if len(s.Progress) > 0 {
			p.say("waiting for live: %s: %s", s.Progress[0].Who, s.Progress[0])
			continue
		}
		p.say("waiting for live: revision %d on %d of %d proxies", s.Revision, live, there)
	}
}

// result prints what a write did, and is an error where it is not live although that was asked for.
func (c *cli) result(r api.ApplyResult) error {
	err := c.print(r, func(w io.Writer) {
		would := ""
		if r.DryRun {
			would = "would "
		}
		for _, x := range r.Changes {
			row(w, fmt.Sprintf("%s%s %s/%s", would, x.Action, x.Kind, x.Name))
		}
		switch {
		case r.DryRun:
			row(w, fmt.Sprintf("%s would change, %d unchanged; nothing has been done (--dry-run)",
				plural(len(r.Changes), "resource"), r.Unchanged))
		case len(r.Changes) == 0:
			row(w, fmt.Sprintf("nothing to do: revision %d has all of it", r.Revision))
		default:
			row(w, fmt.Sprintf("revision %d: %d changed, %d unchanged", r.Revision, len(r.Changes), r.Unchanged))
		}
		for _, x := range r.Warnings {
			warningRow(w, x)
		}
		c.liveRow(w, r.Live)
	})
	if err != nil {
		return err
	}
	return notLive(r.Live)
}

func warningRow(w io.Writer, x api.Warning) {
	row(w, fmt.Sprintf("warning: %s/%s %s", x.Kind, x.Name, x.Message))
}

func (c *cli) liveRow(w io.Writer, l *api.Live) {
	if l != nil && l.Live {
		row(w, fmt.Sprintf("live on %s after %.0f ms", proxies(int(l.Proxies)), l.WaitedMS))
		for _, x := range l.Absent {
			row(w, fmt.Sprintf("not waited for: Envoy %s (%s) of gateway %s, not connected since %s; it served revision %d",
				x.ID, or(x.Address, "-"), x.Gateway, date(x.LastSeenAt), x.AppliedRevision))
		}
		if l.Reason != "" && len(l.Absent) == 0 {
			row(w, "but "+l.Reason)
		}
	}
	if l != nil && !l.Live {
		for _, x := range l.WaitingFor {
			row(w, "waited for: "+lags(x))
		}
	}
}

func notLive(l *api.Live) error {
	switch {
	case l == nil || l.Live:
		return nil
	case l.State == "rejected":
		return &codeError{exitNotLive, "stored, but an Envoy refused it and serves the last good version: " + l.Reason}
	case l.State == "timeout":
		return &codeError{exitNotLive, fmt.Sprintf("stored, but not live after %.0f ms: %s", l.WaitedMS, l.Reason)}
	default:
		return &codeError{exitNotLive, "stored, but not live: " + l.Reason}
	}
}
