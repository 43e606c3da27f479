package web

import (
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

func (a *API) audit(c echo.Context) error {
	limit, err := pageSize(c)
	if err != nil {
		return err
	}
	f := store.AuditFilter{Kind: c.QueryParam("kind"), Name: c.QueryParam("object"), Actor: c.QueryParam("actor"), Limit: limit + 1}
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
