package web

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

func (a *API) status(c echo.Context) error {
	head, end, err := a.Store.Ends(c.Request().Context())
	if err != nil {
		return err
	}
	sum := a.Board.Summary()
	out := api.Status{
		Revision: head.Revision, Epoch: head.Epoch, PublishedRevision: a.Published(), LiveRevision: sum.Live,
		Proxies:  sum.Proxies,
		Rejected: sum.Rejected, RejectedObjects: sum.RejectedObjects, Xds: sum.Servers, State: map[string]api.KindState{},
		Lagging: sum.Lagging, LaggingProxies: sum.LaggingProxies, Troubles: a.troubles(),
		Progress: append(a.progress(), sum.Progress...),
	}
	if out.OldestRevision, err = a.Store.Oldest(c.Request().Context()); err != nil {
		return err
	}
	out.Audit = api.AuditPoint(end)
	for kind, k := range head.State {
		out.State[kind] = api.KindState(k)
	}
	if out.Rejected == nil {
		out.Rejected = []api.Rejection{}
	}
	if out.Xds == nil {
		out.Xds = []api.XdsServer{}
	}
	out.Names, out.UnresolvedNames = a.unresolved(maxNames)
	if out.State[resource.KindLicense].Count > 0 {
		if out.Licenses, err = a.licenses(c.Request().Context(), a.Board.Counts(), time.Now()); err != nil {
			return err
		}
	}
	if out.State[resource.KindLocalityDrain].Count > 0 {
		if out.Drained, err = a.drained(c.Request().Context()); err != nil {
			return err
		}
	}
	if out.Warnings, err = a.ending(c.Request().Context(), head); err != nil {
		return err
	}
	unissued, err := a.unissued(c.Request().Context())
	if err != nil {
		return err
	}
	out.Warnings = append(out.Warnings, unissued...)
	return c.JSON(http.StatusOK, out)
}

// maxDrained is how many drained places the status lists.
const maxDrained = 100

func (a *API) drained(ctx context.Context) ([]api.DrainedLocality, error) {
	objects, _, err := a.Store.Objects(ctx, store.Filter{Kind: resource.KindLocalityDrain, Limit: maxDrained})
	if err != nil {
		return nil, err
	}
	var out []api.DrainedLocality
	for _, o := range objects {
		d := o.Message().(*configv1.LocalityDrain)
		out = append(out, api.DrainedLocality{
			Name: o.Name, Cloud: d.GetCloud(), Region: d.GetRegion(), Zone: d.GetZone(), Reason: d.GetReason(),
			Since: o.CreatedAt,
		})
	}
	return out, nil
}

func (a *API) proxies(c echo.Context) error {
	limit, err := pageSize(c)
	if err != nil {
		return err
	}
	after, err := base64.RawURLEncoding.DecodeString(c.QueryParam("cursor"))
	if err != nil {
		return errCursor
	}
	items, next, total := a.Board.Proxies(live.Filter{
		Gateway: c.QueryParam("gateway"), State: c.QueryParam("state"),
		After: string(after), Limit: limit,
	})
	return c.JSON(http.StatusOK, api.ProxyList{
		Items:      items,
		NextCursor: base64.RawURLEncoding.EncodeToString([]byte(next)), Total: int32(total),
	})
}
