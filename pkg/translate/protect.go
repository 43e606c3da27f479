package translate

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
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
	if len(r.GetFeatures()) > 0 {
		t.featured = true
	}
	policy := r.GetAuthPolicy()
	if p := t.policy(policy); p != nil && isNative(p) {
		policy = NoPolicy // of our filter's; the other engine asks
	}
	out.Name = RouteName(service, name, policy, r.GetFeatures())
	said := map[string]*structpb.Value{metadataRoute: structpb.NewStringValue(name)}
	if service != "" {
		said[metadataService] = structpb.NewStringValue(service)
	}
	out.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metadataSpace: {Fields: said}}}
}

// protect has both engines ask for what the route's policy says. A route that says nothing has the
// gateway's policy, which stands in the engines' own configuration. It returns the routes that go before
// this one: those of paths that need no credentials, where the engine cannot tell them by itself.
func (t *tableBuilder) protect(perFilter map[string]*anypb.Any, out *routev3.Route, r *configv1.Route) []*routev3.Route {
	name := r.GetAuthPolicy()
	if name == "" {
		return nil
	}
	off := pack(jwtOff())
	perFilter[slotJWT] = off
	t.policies[name] = true
	if name == config.NoPolicy {
		return nil
	}
	p := t.policy(name)
	if p == nil || !isNative(p) {
		return nil
	}
	var free []*routev3.Route
	for _, e := range t.exempted(resource.Ref{Kind: resource.KindAuthPolicy, Name: name}, p) {
		f := proto.CloneOf(out)
		f.Match = exempt(f.GetMatch(), e)
		f.TypedPerFilterConfig = maps.Clone(perFilter)
		free = append(free, f)
	}
	perFilter[slotJWT] = pack(jwtOn(name))
	return free
}

// exempted are the paths that need no credentials: none where the policy refuses everything.
func (w *work) exempted(ref resource.Ref, p *configv1.AuthPolicy) []*configv1.ExemptPath {
	if len(p.GetExemptPaths()) == 0 || len(w.part(ref, p).faults) > 0 {
		return nil
	}
	return p.GetExemptPaths()
}

// routeForm is what of a policy stands in the routes that name it.
func (w *work) routeForm(o *resource.Object) string {
	if o == nil {
		return ""
	}
	p := o.Message().(*configv1.AuthPolicy)
	if !isNative(p) {
		return "ours"
	}
	form := "native"
	for _, e := range w.exempted(o.Ref(), p) {
		form += " " + e.GetPath()
		if e.GetPrefix() {
			form += "..."
		}
	}
	return form
}

// needs are the slots without which the table's routes must not be served.
func (t *tableBuilder) needs() []Key {
	var out []Key
	for _, slot := range slices.Sorted(maps.Keys(t.uses)) {
		out = append(out, Key{TypeExtension, slot})
	}
	if t.featured {
		out = append(out, Key{TypeExtension, slotLicense})
	}
	if len(t.policies) > 1 || len(t.policies) == 1 && !t.policies[config.NoPolicy] {
		out = append(out, Key{TypeExtension, slotAuth}, Key{TypeExtension, slotJWT}, Key{TypeExtension, slotClaims})
	}
	return out
}

// usePolicies replaces what a scope's routes name; [config.NoPolicy] is a name, too. Call it before the scope itself
// is replaced, which says what they named so far.
func (w *work) usePolicies(scope Key, policies map[string]bool, featured bool) {
	if old := w.out[scope]; old != nil {
		for _, name := range old.Policies {
			if policies[name] {
				continue
			}
			users := w.policies[name]
			if delete(users, scope); len(users) == 0 {
				delete(w.policies, name)
				w.authed = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		if w.policies[name] == nil {
			w.policies[name] = map[Key]bool{}
			w.authed = true
		}
		w.policies[name][scope] = true
	}
	if was := len(w.featured) > 0; featured {
		w.featured[scope] = true
		w.licensed = w.licensed || !was
	} else if delete(w.featured, scope); was && len(w.featured) == 0 {
		w.licensed = true
	}
}
