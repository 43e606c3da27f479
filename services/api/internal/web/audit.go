package web

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

func (a *API) audit(c echo.Context) error {
	limit, err := pageSize(c)
	if err != nil {
		return err
	}
	f := store.AuditFilter{
		Kind: c.QueryParam("kind"), Name: c.QueryParam("object"), Actor: c.QueryParam("actor"),
		Limit: limit + 1,
	}
	cur, err := cursor(c)
	if err != nil {
		return err
	}
	if cur != "" {
		f.After = &store.AuditRow{}
		if json.Unmarshal([]byte(cur), f.After) != nil {
			return errCursor
		}
	}
	rows, err := a.Store.Audit(c.Request().Context(), f)
	if err != nil {
		return err
	}
	out := api.AuditList{Items: []api.AuditEntry{}}
	if len(rows) > limit {
		rows = rows[:limit]
		last := rows[limit-1]
		b, err := json.Marshal(store.AuditRow{At: last.At, Revision: last.Revision, Kind: last.Kind, Name: last.Name})
		if err != nil {
			return err
		}
		out.NextCursor = base64.RawURLEncoding.EncodeToString(b)
	}
	for _, r := range rows {
		out.Items = append(out.Items, api.AuditEntry{
			Revision: r.Revision, At: resource.Time(r.At), Actor: r.Actor, RequestID: r.RequestID,
			Message: r.Message, Action: r.Action, Kind: r.Kind, Name: r.Name,
			ActorID: r.ActorID,
		})
	}
	return c.JSON(http.StatusOK, out)
}

// verifyFor is how long one request verifies.
const verifyFor = 5 * time.Second

// verifyAudit verifies a part of the audit. One does so at a time: each costs the database what all can have of it.
func (a *API) verifyAudit(c echo.Context) error {
	ctx := c.Request().Context()
	var v store.Verified
	cur, err := cursor(c)
	if err != nil {
		return err
	}
	if cur != "" && json.Unmarshal([]byte(cur), &v) != nil {
		return errCursor
	}
	select {
	case a.verifying <- struct{}{}:
		defer func() { <-a.verifying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := a.Store.Verify(ctx, &v, c.QueryParam("head"), time.Now().Add(verifyFor)); err != nil {
		return err
	}
	out := api.AuditVerification{
		OK: v.Done, Last: api.AuditPoint(v.Last), Records: v.Records, Entries: v.Entries, Adopted: v.Adopted,
		Unproven: v.Unproven, Unchained: v.Unchained,
	}
	if v.Adopted > 0 {
		out.AdoptedAt = resource.Time(v.AdoptedAt)
	}
	if v.FoundN != nil {
		out.Found = &api.AuditPoint{N: *v.FoundN, Hash: c.QueryParam("head")}
	}
	switch b := v.Broken; {
	case b != nil:
		out.Broken = &api.AuditBroken{N: b.N, Revision: b.Revision, Reason: b.Reason}
		if !b.At.IsZero() {
			out.Broken.At = resource.Time(b.At)
		}
		a.Log.Error("the audit does not fit", zap.Int64("record", b.N), zap.Int64("revision", b.Revision),
			zap.String("reason", b.Reason))
	case !v.Done:
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		out.NextCursor = base64.RawURLEncoding.EncodeToString(b)
	}
	return c.JSON(http.StatusOK, out)
}

// exportFor is how long a client may take for a page of an export.
const exportFor = time.Minute

// exportAudit streams a part of the audit.
func (a *API) exportAudit(c echo.Context) error {
	var times [2]time.Time
	for i, name := range []string{"since", "until"} {
		if text := c.QueryParam(name); text != "" {
			var err error
			if times[i], err = time.Parse(time.RFC3339Nano, text); err != nil {
				return wrong(http.StatusBadRequest, "query parameter %s must be a time as RFC 3339 has it, such as "+
					"2026-01-31T00:00:00Z", name)
			}
		}
	}
	ctx, who := c.Request().Context(), actor(c).String()
	if err := a.followers.join(who); err != nil {
		return err
	}
	defer a.followers.leave(who)
	h, err := a.Store.Stretch(ctx, times[0], times[1])
	if err != nil {
		return err
	}
	first, err := json.Marshal(h)
	if err != nil {
		return err
	}
	// Not application/x-ndjson: generators of clients know no such type, and leave the answer out.
	c.Response().Header().Set(echo.HeaderContentType, echo.MIMETextPlainCharsetUTF8)
	c.Response().Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(c.Response())
	write := func(lines []byte) error {
		if err := rc.SetWriteDeadline(time.Now().Add(exportFor)); err != nil {
			return err
		}
		if _, err := c.Response().Write(lines); err != nil {
			return err
		}
		return rc.Flush()
	}
	if err = write(append(first, '\n')); err == nil {
		err = a.Store.Export(ctx, h, write)
	}
	if err != nil {
		if ctx.Err() == nil {
			a.about(c).Warn("an export of the audit broke off", zap.Error(err))
		}
		panic(http.ErrAbortHandler) // an end would look like the end of the audit
	}
	return nil
}
