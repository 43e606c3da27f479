package web

import (
	"net/http"

	"github.com/labstack/echo/v4"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

func (a *API) metricsSummary(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, a.Board.Traffic())
}

// serviceHealth asks the board alone: how the Envoys see the endpoints has come with the agents' reports.
func (a *API) serviceHealth(c echo.Context) error {
	ref := resource.Ref{Kind: resource.KindService, Name: c.Param("name")}
	out := api.ServiceHealth{Name: ref.Name}
	gateways := map[string]bool{}
	var stored []live.Endpoint
	found := false
	if err := a.Writer.Read(c.Request().Context(), func(st *config.State) {
		o := st.Get(ref)
		if found = o != nil; !found {
			return
		}
		s := o.Message().(*configv1.Service)
		if s.GetLocality().GetLatency() != nil {
			out.Orders = orders(st, ref.Name, s, a.Board.Latencies(ref.Name))
		}
		out.Revision, out.Checked = o.Revision, s.GetHealthCheck() != nil || s.GetOutlierDetection() != nil
		for _, e := range s.GetEndpoints() {
			stored = append(stored, live.Endpoint{Host: e.GetHost(), Port: int32(e.GetPort())})
		}
		for _, set := range st.EndpointSetsOf(ref.Name) {
			for _, e := range set.Message().(*configv1.EndpointSet).GetEndpoints() {
				stored = append(stored, live.Endpoint{Host: e.GetHost(), Port: int32(e.GetPort()), Set: set.Name})
			}
		}
		for user := range st.EachUser(ref) {
			for _, g := range gatewaysOf(st, user) {
				gateways[g] = true
			}
		}
	}); err != nil {
		return err
	}
	if !found {
		return missing(store.ErrNotFound, "%s %q; GET /v1/services lists those that there are", ref.Kind, ref.Name)
	}
	out.Endpoints, out.Proxies = a.Board.Health(ref.Name, out.Checked, gateways, stored)
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, out)
}

// orders are those of a service's places, as the xDS servers make them of the same reports.
func orders(st *config.State, service string, s *configv1.Service, measured []live.Measured) (out []api.PlaceOrder) {
	for _, m := range measured {
		o := api.PlaceOrder{Cloud: m.From.Cloud, Region: m.From.Region, Zone: m.From.Zone, Proxies: m.Proxies}
		for _, p := range translate.Priorities(st, service, s, m.From, m.Steady) {
			x := api.OrderedPlace{Cloud: p.Cloud, Region: p.Region, Zone: p.Zone, Priority: int32(p.Priority)}
			x.SteadyLatencyMS, x.Measured = m.Steady[p.Place], m.Steady[p.Place] > 0
			x.LatencyMS = m.Now[p.Place]
			o.Places = append(o.Places, x)
		}
		out = append(out, o)
	}
	return out
}

// gatewaysOf are the gateways whose Envoys have what an object asks for.
func gatewaysOf(st *config.State, user resource.Ref) []string {
	switch user.Kind {
	case resource.KindRoute:
		return config.Gateways(st.Get(user).Message().(*configv1.Route))
	case resource.KindAuthPolicy:
		return st.PolicyGateways(user.Name)
	case resource.KindGateway:
		return []string{user.Name}
	}
	return nil
}
