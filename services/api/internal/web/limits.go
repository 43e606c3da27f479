package web

import (
	"net/http"

	"github.com/labstack/echo/v4"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
)

// limitOf is what to wait for at the nodes after a change of what is for them.
func limitOf(k *config.Kind, c config.Change) live.Limit {
	l := live.Limit{Name: c.Ref().Name}
	for o := range c.Objects {
		l.Selectors = append(l.Selectors, k.Nodes(o))
	}
	if c.After != nil {
		l.Revision = c.After.Revision
	}
	return l
}

func (a *API) limitStatus(c echo.Context) error {
	o, err := a.Store.Object(c.Request().Context(), resource.Ref{Kind: resource.KindRateLimit, Name: c.Param("name")})
	if err != nil {
		return missing(err, "%s %q; GET /v1/rate-limit-policies lists those that there are", resource.KindRateLimit,
			c.Param("name"))
	}
	selector := o.Message().(*configv1.RateLimitPolicy).GetNodeSelector()
	return c.JSON(http.StatusOK, api.RateLimitStatus{
		Name: o.Name, Revision: o.Revision,
		Nodes: a.Board.Nodes(o.Name, o.Revision, selector),
	})
}

func (a *API) nodes(c echo.Context) error {
	return c.JSON(http.StatusOK, api.NodeList{Items: a.Board.AllNodes()})
}
