package translate

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/servername"
)

// listenerResource is a listener as it is served, which sends its traces to a cluster, and the certificates that it
// uses.
func (v *view) listenerResource(l *configv1.Listener, names *servername.Index) (*Resource, map[string]certUse) {
	s := serve(names, l.GetName())
	own := map[string]certUse{}
	s.uses(own)
	var clusters []string
	if s := v.gw.GetTracing().GetService(); s != "" {
		clusters = []string{s}
	}
	build := func(plain bool) *Resource {
		r := newResource(l.GetName(), listener(v.gateway, v.gw, l, s, plain), clusters, v.ref())
		r.Secrets, r.Together = secrets(own), s.together()
		return r
	}
	r := build(false)
	r.Plain = build(true)
	return r, own
}

// listener builds one; s is nil for one without TLS, and plain for an Envoy without the gateway's runtime.
func listener(gateway string, g *configv1.Gateway, l *configv1.Listener, s *serving, plain bool) *listenerv3.Listener {
	bind := l.GetAddress()
	if bind == "" {
		bind = "0.0.0.0"
	}
	out := &listenerv3.Listener{
		Name: l.GetName(), Address: address(bind, l.GetPort()), StatPrefix: l.GetName(),
		Metadata:                      listenerMetadata(l.GetName()),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(32 << 10),
	}
	filters := networkFilters(gateway, g, l, plain)
	if s == nil {
		out.FilterChains = []*listenerv3.FilterChain{{Name: "http", Filters: filters}}
		return out
	}
	out.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name: "envoy.filters.listener.tls_inspector", ConfigType: &listenerv3.ListenerFilter_TypedConfig{
			TypedConfig: pack(&inspectorv3.TlsInspector{}),
		},
	}}
	s.terminate(out, filters)
	return out
}

func networkFilters(gateway string, g *configv1.Gateway, l *configv1.Listener, plain bool) []*listenerv3.Filter {
	return []*listenerv3.Filter{filterAddresses.networkPlace(), filterConnections.networkPlace(), {
		Name: "envoy.filters.network.http_connection_manager", ConfigType: &listenerv3.Filter_TypedConfig{
			TypedConfig: pack(connectionManager(gateway, g, l, plain)),
		},
	}}
}

// delayedClose is how long Envoy keeps a connection that it wants closed after an answer of its own, for a client that
// is still sending: closed at once, the kernel would reset the connection and the answer with it. Envoy's second is
// what each client that asks for the end of the connection waits, HTTP/1.0 among them (docs/adr/0011-defaults.md).
const delayedClose = 100 * time.Millisecond

// connectionManager follows Envoy's own advice for proxies at the edge.
func connectionManager(
	gateway string, g *configv1.Gateway, l *configv1.Listener, plain bool,
) *hcmv3.HttpConnectionManager {
	lim := g.GetLimits()
	h := &hcmv3.HttpConnectionManager{
		StatPrefix: l.GetName(), CodecType: hcmv3.HttpConnectionManager_AUTO, ServerName: "marchproxy",
		RouteSpecifier:                scopedRoutes(),
		StripPortMode:                 &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true},
		StripTrailingHostDot:          true, // x.example.com. is x.example.com, for wildcards as well
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{earlyMutation(l.GetName())},
		UseRemoteAddress:              wrapperspb.Bool(true),
		NormalizePath:                 wrapperspb.Bool(true), MergeSlashes: true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT,
		RequestHeadersTimeout:        orElse(lim.GetRequestHeadersTimeout(), time.Minute),
		// Each byte of a body starts the idle time anew: without this one a client holds a request open as long as it likes.
		RequestTimeout:      orElse(lim.GetRequestTimeout(), 5*time.Minute),
		StreamIdleTimeout:   durationpb.New(5 * time.Minute),
		DelayedCloseTimeout: durationpb.New(delayedClose),
		// HTTP/1.0 is what load balancers' checks and ab speak; Envoy alone would answer 426.
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{AcceptHttp_10: true},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout: orElse(lim.GetIdleTimeout(), time.Hour),
			// Clients have such headers of their own. The auth filter takes off what claims are forwarded in, in any spelling.
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_ALLOW,
			MaxHeadersCount:              positive(lim.GetMaxRequestHeaders()),
		},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams: wrapperspb.UInt32(100), InitialStreamWindowSize: wrapperspb.UInt32(64 << 10),
			InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
		},
		MaxRequestHeadersKb: positive(lim.GetMaxRequestHeadersKb()),
		AccessLog:           append(requestMetrics(g, plain), accessLogs(gateway, g.GetAccessLog(), plain)...),
		Tracing:             tracing(gateway, g.GetTracing(), plain),
		LocalReplyConfig:    refusals(),
	}
	for _, f := range filters {
		h.HttpFilters = append(h.HttpFilters, f.place())
	}
	h.HttpFilters = append(h.HttpFilters, &hcmv3.HttpFilter{
		Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})},
	})
	return h
}

func tracing(gateway string, t *configv1.Tracing, plain bool) *hcmv3.HttpConnectionManager_Tracing {
	if t == nil {
		return nil
	}
	sampling := 0.0 // the runtime says how much
	if plain {
		sampling = percent(t)
	}
	return &hcmv3.HttpConnectionManager_Tracing{
		RandomSampling: &typev3.Percent{Value: sampling},
		Provider: &tracev3.Tracing_Http{Name: "envoy.tracers.opentelemetry", ConfigType: &tracev3.Tracing_Http_TypedConfig{
			TypedConfig: pack(&tracev3.OpenTelemetryConfig{
				ServiceName: "marchproxy-" + gateway,
				GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: t.GetService()},
				}},
			}),
		}},
	}
}
