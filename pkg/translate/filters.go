package translate

import (
	"cmp"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	chainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	httpwasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Slots are places in the filter chain whose content comes by ECDS. Every listener has all of them, in
// use or not, so that the first policy of a gateway changes as little as its hundredth key: no listener,
// no connection. A slot that is not in use is asleep: Envoy makes nothing of it for a request.
const (
	slotHost     = "marchproxy.authority" // host.go
	slotMetrics  = "marchproxy.metrics"
	slotRequests = "marchproxy.requests" // rate limit policies
	slotLicense  = "marchproxy.license"
	slotAuth     = "marchproxy.auth"   // our filter: HMAC keys, opaque tokens
	slotJWT      = "marchproxy.jwt"    // Envoy's own: public keys
	slotClaims   = "marchproxy.claims" // the claims that tokens of slotJWT must have
	slotLimit    = "marchproxy.listener_rate_limit"
	// Those of what single routes ask for: routefilters.go.
	slotCORS       = "envoy.filters.http.cors"
	slotRouteLimit = "marchproxy.route_rate_limit"
	// slotHostEarlier is the place of the host filter in listeners from before [slotHost], whose connections may drain.
	slotHostEarlier = "marchproxy.host"
	// slotConnections is a place among the network filters: connlimit.go.
	slotConnections = "marchproxy.connections"
)

// slotNames are all of them.
var slotNames = []string{
	slotConnections, slotHost, slotHostEarlier, slotMetrics, slotCORS, slotRequests, slotLimit, slotRouteLimit, slotLicense, slotAuth,
	slotJWT, slotClaims,
}

// slot is a place in the chain. Until its content has come, or where it cannot be had, those that protect
// something let nothing through.
func slot(name string, types ...proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{
		ConfigDiscovery: discovered(name, types...),
	}}
}

// discovered is where a slot's content comes from, of one of the types.
func discovered(name string, types ...proto.Message) *corev3.ExtensionConfigSource {
	source := &corev3.ExtensionConfigSource{ConfigSource: ads(), DefaultConfig: pack(before(name))}
	urls := map[string]bool{source.DefaultConfig.GetTypeUrl(): true}
	for _, t := range types {
		urls[pack(t).GetTypeUrl()] = true
	}
	source.TypeUrls = slices.Sorted(maps.Keys(urls))
	return source
}

// before is a slot's content before it has any.
func before(name string) proto.Message {
	switch name {
	case slotConnections:
		return unlimited()
	case slotMetrics, slotRequests:
		return passThrough()
	case slotLimit, slotCORS, slotRouteLimit:
		return asleep()
	default:
		return unavailable()
	}
}

// Closed is a slot's content before it has any, as a resource.
func Closed(name string) *Resource { return extension(name, before(name), nil) }

func slotOfMetrics() *hcmv3.HttpFilter {
	return slot(slotMetrics, &httpwasmv3.Wasm{}, passThrough(), asleep())
}

// slotOfRequests is open before its content has come, and where Envoy refuses it: a limit shares out what
// there is, and no service at all is no fair share. A listener waits for its slots before it opens.
func slotOfRequests() *hcmv3.HttpFilter {
	return slot(slotRequests, &compositev3.Composite{}, passThrough(), asleep())
}

// slotOfLimit holds the local rate limit of the listener's requests.
func slotOfLimit() *hcmv3.HttpFilter { return slot(slotLimit, &limitv3.LocalRateLimit{}, asleep()) }

func slotsAfter() []*hcmv3.HttpFilter {
	return []*hcmv3.HttpFilter{
		slot(slotLicense, &httpwasmv3.Wasm{}, passThrough(), asleep()),
		slot(slotAuth, &httpwasmv3.Wasm{}, passThrough(), asleep()),
		slot(slotJWT, &jwtv3.JwtAuthentication{}, asleep()),
		slot(slotClaims, &rbacv3.RBAC{}, passThrough(), asleep()),
	}
}

// passThrough is what an unused slot held before there was [asleep]: a filter that does nothing, and costs a filter.
func passThrough() proto.Message { return &mutationv3.HeaderMutation{} }

// asleep is an empty chain: Envoy puts nothing at all into the request's filters for it, so that a place
// whose content is asleep costs next to nothing.
func asleep() proto.Message { return &chainv3.FilterChainConfig{} }

// unavailable answers 503 to everything.
func unavailable() proto.Message {
	return &faultv3.HTTPFault{Abort: &faultv3.FaultAbort{
		ErrorType:  &faultv3.FaultAbort_HttpStatus{HttpStatus: 503},
		Percentage: &typev3.FractionalPercent{Numerator: 100, Denominator: typev3.FractionalPercent_HUNDRED},
	}}
}

// capabilities are the host calls and callbacks of each filter: what Envoy lets it do, and nothing else.
var capabilities = map[string][]string{
	"metrics": {
		"proxy_on_context_create", "proxy_on_configure", "proxy_on_request_body", "proxy_on_response_body", "proxy_on_log",
		"proxy_on_tick", "proxy_on_memory_allocate", "proxy_log", "proxy_get_buffer_bytes", "proxy_get_header_map_pairs",
		"proxy_get_property", "proxy_define_metric", "proxy_increment_metric", "proxy_record_metric",
		"proxy_set_tick_period_milliseconds", "clock_time_get",
	},
	"license": decides,
	"auth":    decides,
}

// decides is what a filter needs that lets requests through or not.
var decides = []string{
	"proxy_on_context_create", "proxy_on_configure", "proxy_on_request_headers", "proxy_on_memory_allocate", "proxy_log",
	"proxy_get_buffer_bytes", "proxy_get_property", "proxy_define_metric", "proxy_increment_metric",
	"proxy_get_header_map_pairs", "proxy_set_header_map_pairs", "proxy_get_current_time_nanoseconds", "proxy_send_local_response",
}

// Wasm is the configuration of one of our filters (metrics, license, auth) as Envoy has it: the module's
// file and the filter's own configuration in JSON. The VM is the same for every configuration, so that a
// change costs no new one; each filter has one of its own.
func Wasm(name, file string, configuration []byte) *httpwasmv3.Wasm {
	allowed := map[string]*wasmv3.SanitizationConfig{}
	for _, c := range capabilities[name] {
		allowed[c] = &wasmv3.SanitizationConfig{}
	}
	policy := wasmv3.FailurePolicy_FAIL_RELOAD // and closed, until it runs again
	if name == "metrics" {
		policy = wasmv3.FailurePolicy_FAIL_OPEN
	}
	id := "marchproxy." + name
	return &httpwasmv3.Wasm{Config: &wasmv3.PluginConfig{
		Name: id, RootId: id, FailurePolicy: policy, Configuration: pack(wrapperspb.String(string(configuration))),
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			VmId: id, Runtime: "envoy.wasm.runtime.v8", CapabilityRestrictionConfig: &wasmv3.CapabilityRestrictionConfig{AllowedCapabilities: allowed},
			Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: file}}}},
		}},
	}}
}

func (w *work) module(name string) string {
	if w.opt.Module == nil {
		return "/var/lib/envoy/wasm/" + name + ".wasm"
	}
	return w.opt.Module(name)
}

// fill puts something into a slot; objects are what it was built from.
func (w *work) fill(slot string, content proto.Message, objects ...resource.Ref) {
	r := extension(slot, content, nil, objects...)
	w.put(r.Key, r)
}

// sleeping is a slot that is not in use. An Envoy whose listeners may be from before they took an empty chain gets
// the other content: it would refuse the chain as long as connections of such a listener drain.
func sleeping(slot string, other proto.Message, objects ...resource.Ref) *Resource {
	r := extension(slot, asleep(), nil, objects...)
	r.Plain = extension(slot, other, nil, objects...)
	return r
}

// sleep is [work.fill] with nothing.
func (w *work) sleep(slot string, objects ...resource.Ref) {
	r := sleeping(slot, passThrough(), objects...)
	w.put(r.Key, r)
}

// unused is a slot that protects nothing any more.
func unused(slot string, objects ...resource.Ref) *Resource {
	r := sleeping(slot, passThrough(), objects...)
	r.Late, r.Plain.Late = true, true
	return r
}

// newestFirst sorts what a slot is built from: what was changed last is what Envoy refuses, if it refuses
// something.
func (w *work) newestFirst(objects []resource.Ref) {
	slices.SortStableFunc(objects, func(a, b resource.Ref) int { return cmp.Compare(w.st.Get(b).Revision, w.st.Get(a).Revision) })
}

func extension(slot string, content proto.Message, clusters []string, objects ...resource.Ref) *Resource {
	return newResource(slot, &corev3.TypedExtensionConfig{Name: slot, TypedConfig: pack(content)}, clusters, objects...)
}

// slots builds the content of those of the gateway's slots that may be another.
func (w *work) slots() {
	gw := resource.Ref{Kind: resource.KindGateway, Name: w.gateway}
	if w.gw == nil {
		for _, name := range slotNames {
			w.put(Key{TypeExtension, name}, nil)
		}
		w.put(Key{TypeRuntime, bootstrap.RuntimeLayer}, nil)
		return
	}
	if w.slotted {
		w.own(gw)
	}
	if w.limited {
		w.requests(gw)
	}
	if w.licensed {
		w.license(gw)
	}
	if w.authed {
		w.auth(gw)
	}
}

// own builds the slots that depend on nothing but the gateway.
func (w *work) own(gw resource.Ref) {
	w.runtime(gw)
	if metrics(w.gw) == configv1.Gateway_wasm {
		w.fill(slotMetrics, Wasm("metrics", w.module("metrics"), []byte("{}")), gw)
	} else {
		w.sleep(slotMetrics, gw)
	}
	w.fill(slotHost, hostFilter(), gw)
	w.fill(slotHostEarlier, &luav3.Lua{DefaultSourceCode: inline(earlierScript)}, gw)
	w.fill(slotConnections, connectionLimit(w.gw.GetLimits().GetMaxConnections()), gw)
	w.fill(slotLimit, listenerLimit(w.gw.GetLimits().GetLocalRateLimit()), gw)
	w.routeFilters(gw)
}
