package web

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// Parts of the system that a [api.Trouble] is about.
const (
	partDatabase = "database"
	partStream   = "stream"
)

// troubles lists what does not work of the system's own parts; nil where all is well.
func (a *API) troubles() (out []api.Trouble) {
	add := func(part, reason string, since time.Time) {
		out = append(out, api.Trouble{Part: part, Reason: reason, Since: resource.Time(since)})
	}
	if t, bad := a.Store.Trouble(); bad {
		add(partDatabase, t.Reason, t.Since)
	}
	if reason, since := a.Unpublished(); reason != "" {
		add(partStream, reason, since)
	}
	return append(out, a.Board.Troubles()...)
}

// progress lists what is under way for longer than a moment; nil where all is done.
func (a *API) progress() (out []api.Progress) {
	for _, of := range a.Progress {
		out = append(out, of()...)
	}
	return out
}

// whyNot is why the database did not do what it was asked: by what it is known for at present, or by its own words; ""
// where it is not the database's fault.
func (a *API) whyNot(err error) string {
	t, _ := a.Store.Trouble()
	return cmp.Or(t.Reason, store.Why(err))
}

// unpublished gives the reason why a revision that is not live is not published, if it is not.
func (a *API) unpublished(l *api.Live, revision int64) {
	if reason, _ := a.Unpublished(); reason != "" && !l.Live && l.State != "rejected" && revision > a.Published() {
		l.Reason = "stored, but not published: " + reason
	}
}

// ready answers whether what is written here reaches the Envoys, as far as it is this api's and its database's and
// NATS's part.
func (a *API) ready(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 2*time.Second)
	defer cancel()
	if err := a.Store.Ping(ctx); err != nil {
		return wrong(http.StatusServiceUnavailable, "%s", cmp.Or(a.whyNot(err), "the database does not answer"))
	}
	if t, bad := a.Store.Trouble(); bad {
		return wrong(http.StatusServiceUnavailable, "%s", t.Reason)
	}
	if reason, _ := a.Unpublished(); reason != "" && a.Writer.Revision() > a.Published() {
		return wrong(http.StatusServiceUnavailable, "revision %d is stored, but not published: %s",
			a.Writer.Revision(), reason)
	}
	return c.JSON(http.StatusOK, map[string]string{"status": "ready"})
}
