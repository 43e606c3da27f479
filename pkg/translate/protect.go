package translate

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// tell writes what the filters must know of a route into its name. Its plain name goes into the metadata, for
// access logs, and its service, for metrics.
func (t *tableBuilder) tell(out *routev3.Route, name string, r *configv1.Route) {
	service := ""
	switch len(r.GetBackends()) {
	case 0:
	case 1:
		service = r.GetBackends()[0].GetService()
	default:
		service = "weighted"
	}
	policy := r.GetAuthPolicy()
	if isNative(t.policy(policy)) {
		policy = NoPolicy // of our filter's; the other engine asks
	}
	out.Name = RouteName(service, name, policy, r.GetFeatures())
	said := map[string]*structpb.Value{metadataRoute: structpb.NewStringValue(name)}
	if service != "" {
		said[metadataService] = structpb.NewStringValue(service)
	}
	out.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metadataSpace: {Fields: said}}}
}

// exempt notes the policy that a route names, and makes the routes that go before it: those of paths that need no
// credentials, where the engine cannot tell them by itself.
func (t *tableBuilder) exempt(out *routev3.Route, r *configv1.Route) []*routev3.Route {
	name := r.GetAuthPolicy()
	if name == "" {
		return nil
	}
	t.policies[name] = true
	p := t.policy(name)
	if !isNative(p) {
		return nil
	}
	var free []*routev3.Route
	for _, e := range t.exempted(resource.Ref{Kind: resource.KindAuthPolicy, Name: name}, p) {
		f := proto.CloneOf(out)
		f.Match = exempt(f.GetMatch(), e)
		f.TypedPerFilterConfig[nameJWT] = pack(jwtOff())
		free = append(free, f)
	}
	return free
}

// exempted are the paths that need no credentials: none where the policy refuses everything.
func (v *view) exempted(ref resource.Ref, p *configv1.AuthPolicy) []*configv1.ExemptPath {
	if len(p.GetExemptPaths()) == 0 || len(v.part(ref, p).faults) > 0 {
		return nil
	}
	return p.GetExemptPaths()
}

// routeForm is what of a policy stands in the routes that name it.
func (v *view) routeForm(o *resource.Object) string {
	if o == nil {
		return ""
	}
	p := o.Message().(*configv1.AuthPolicy)
	if !isNative(p) {
		return "ours"
	}
	form := "native"
	if needsOurs(p) {
		form = "both"
	}
	for _, e := range v.exempted(o.Ref(), p) {
		form += " " + e.GetPath()
		if e.GetPrefix() {
			form += "..."
		}
	}
	return form
}

// ask notes that a route of the table asks for a filter.
func (t *tableBuilder) ask(name string) {
	if t.asks == nil {
		t.asks = map[string]bool{}
	}
	t.asks[name] = true
}

// needs are the filter configs without which the table's routes must not be served.
func (t *tableBuilder) needs() []Key {
	var out []Key
	for _, f := range filters {
		if t.asks[f.name] {
			out = append(out, Key{TypeExtension, f.name})
		}
	}
	return out
}
