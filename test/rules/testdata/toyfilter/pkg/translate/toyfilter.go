package translate

import (
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

const nameToy = "marchproxy.toy"

// filterToy tells the service that a route names of each request.
var filterToy = &filter{
	name: nameToy, holds: []proto.Message{&luav3.Lua{}}, before: asleep(),
	on:      onRoutes,
	content: func(c *chain) *Resource { return c.onDemand(nameToy, &luav3.Lua{}) },
	asks:    func(_ *view, r *configv1.Route) bool { return r.GetToy() != "" },
	route: func(t *tableBuilder, _ string, r *configv1.Route) proto.Message {
		if r.GetToy() == "" {
			return nil
		}
		t.clusters[r.GetToy()] = true
		script := `function envoy_on_request(handle)
  handle:httpCall("` + r.GetToy() + `", {[":method"] = "GET", [":path"] = "/", [":authority"] = "toy"}, nil, 100, true)
end
`
		return &luav3.LuaPerRoute{Override: &luav3.LuaPerRoute_SourceCode{SourceCode: inline(script)}}
	},
}
