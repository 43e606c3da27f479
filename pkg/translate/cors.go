package translate

import (
	"strconv"
	"strings"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

const nameCORS = "envoy.filters.http.cors"

// filterCORS answers preflights and sets the headers of the answers to other origins, as a route says.
var filterCORS = &filter{
	name: nameCORS, holds: []proto.Message{&corsv3.Cors{}}, before: asleep(),
	on:      onRoutes,
	content: func(c *chain) *Resource { return c.onDemand(nameCORS, &corsv3.Cors{}) },
	asks:    func(_ *view, r *configv1.Route) bool { return r.GetCors() != nil },
	route: func(_ *tableBuilder, _ string, r *configv1.Route) proto.Message {
		if r.GetCors() == nil {
			return nil
		}
		return cors(r.GetCors())
	},
}

func cors(c *configv1.Cors) *corsv3.CorsPolicy {
	out := &corsv3.CorsPolicy{
		AllowMethods: strings.Join(c.GetAllowMethods(), ","), AllowHeaders: strings.Join(c.GetAllowHeaders(), ","),
		ExposeHeaders: strings.Join(c.GetExposeHeaders(), ","), AllowCredentials: wrapperspb.Bool(c.GetAllowCredentials()),
	}
	if c.GetMaxAge() != nil {
		out.MaxAge = strconv.FormatInt(c.GetMaxAge().GetSeconds(), 10)
	}
	for _, o := range c.GetAllowOrigins() {
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, stringMatch(o))
	}
	return out
}
