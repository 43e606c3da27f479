package translate

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	statsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3"
	httpwasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	transformv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/actions/transform_stat/v3"
	inputv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/stats/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
)

const nameMetrics = "marchproxy.metrics"

// filterMetrics counts requests in WASM, at gateways that ask for that: Envoy itself does it otherwise
// ([requestMetrics]).
var filterMetrics = &filter{
	name: nameMetrics, holds: []proto.Message{&httpwasmv3.Wasm{}, passThrough(), asleep()}, before: passThrough(),
	on: onGateway,
	content: func(c *chain) *Resource {
		if metrics(c.gw) == configv1.Gateway_wasm {
			return extension(nameMetrics, Wasm("metrics", c.module("metrics"), []byte("{}")), nil, c.ref())
		}
		return sleeping(nameMetrics, passThrough(), c.ref())
	},
}

// Keys of what a route's metadata say of it.
const (
	metadataRoute   = "route"
	metadataService = "service"
)

// Limits of what Envoy keeps of metrics: a histogram of durations takes some KB a worker, a counter 200 bytes.
const (
	maxHistograms = 1000
	maxCounters   = 100000
)

// metrics says what counts a gateway's requests; METRICS_ENGINE_UNSPECIFIED is for nothing.
func metrics(g *configv1.Gateway) configv1.Gateway_MetricsEngine {
	switch {
	case g.Metrics != nil && !g.GetMetrics():
		return configv1.Gateway_METRICS_ENGINE_UNSPECIFIED
	case g.GetMetricsEngine() == configv1.Gateway_wasm:
		return configv1.Gateway_wasm
	}
	return configv1.Gateway_native
}

// requestMetrics counts requests at their end, with the names and labels of the filter in WASM. They are
// in the listener whether they are counted or not, which the runtime says; plain, where they are.
func requestMetrics(g *configv1.Gateway, plain bool) []*accesslogv3.AccessLog {
	if plain && metrics(g) != configv1.Gateway_native {
		return nil
	}
	method := tag("method", own("%REQ(:METHOD)%"), &xdsmatcherv3.Matcher{
		MatcherType: tree(&xdsmatcherv3.Matcher_MatcherTree{
			TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{ExactMatchMap: says(map[string]string{
				"GET": "read", "HEAD": "read", "OPTIONS": "read", "TRACE": "read",
				"POST": "write", "PUT": "write", "PATCH": "write", "DELETE": "write", "CONNECT": "connect",
			})},
		}), OnNoMatch: becomes("other"),
	})
	status := tag("status", own("%RESPONSE_CODE%"), &xdsmatcherv3.Matcher{
		MatcherType: tree(&xdsmatcherv3.Matcher_MatcherTree{
			TreeType: &xdsmatcherv3.Matcher_MatcherTree_PrefixMatchMap{PrefixMatchMap: says(map[string]string{
				"1": "1xx", "2": "2xx", "3": "3xx", "4": "4xx", "5": "5xx",
			})},
		}), OnNoMatch: becomes("none"),
	})
	config := &statsv3.Config{
		// Listeners count into the same figures, for these are found by name. A scope that all of them share would be
		// found as well, and its limits would be those of all, but Envoy 1.40 crashes when the last of its listeners ends
		// (`--mode validate` shows it).
		StatsScope: &typev3.Scope{
			Prefix:      bootstrap.Namespace,
			MaxCounters: wrapperspb.UInt32(maxCounters), MaxHistograms: wrapperspb.UInt32(maxHistograms),
		},
		Counters: []*statsv3.Config_Counter{
			{Stat: figure("requests_total", method, status), ValueFixed: wrapperspb.UInt64(1)},
			counter(figure("request_bytes_total"), own("%DOWNSTREAM_WIRE_BYTES_RECEIVED%")),
			counter(figure("response_bytes_total"), own("%DOWNSTREAM_WIRE_BYTES_SENT%")),
		},
		Histograms: []*statsv3.Config_Histogram{
			histogram(figure("request_duration_us"), own("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%")),
		},
	}
	out := &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.stats", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(config)},
	}
	if !plain {
		out.Filter = byRuntime(keyMetrics, 0, typev3.FractionalPercent_HUNDRED)
	}
	return []*accesslogv3.AccessLog{out}
}

// NativeMetrics is how Envoy counts requests where nothing switches it off.
func NativeMetrics() *accesslogv3.AccessLog { return requestMetrics(&configv1.Gateway{}, true)[0] }

// figure is one of ours, by service and route.
func figure(name string, more ...*statsv3.Config_Tag) *statsv3.Config_Stat {
	return &statsv3.Config_Stat{Name: "marchproxy_" + name, Tags: append([]*statsv3.Config_Tag{
		ofRoute(metadataService), ofRoute(metadataRoute),
	}, more...)}
}

// ofRoute is what a route's metadata say, or "none": of a route that sends to no service, and of no route.
func ofRoute(key constant) *statsv3.Config_Tag {
	return tag(string(key), own("%METADATA(ROUTE:"+metadataSpace+":"+key+")%"), &xdsmatcherv3.Matcher{
		MatcherType: tree(&xdsmatcherv3.Matcher_MatcherTree{
			TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{ExactMatchMap: says(map[string]string{"": "none"})},
		}),
	})
}

// tree looks a tag's value up.
func tree(t *xdsmatcherv3.Matcher_MatcherTree) *xdsmatcherv3.Matcher_MatcherTree_ {
	t.Input = &xdscorev3.TypedExtensionConfig{
		Name: "envoy.matching.common_inputs.stat_tag_value", TypedConfig: pack(&inputv3.StatTagValueInput{}),
	}
	return &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: t}
}

func says(values map[string]string) *xdsmatcherv3.Matcher_MatcherTree_MatchMap {
	out := &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: map[string]*xdsmatcherv3.Matcher_OnMatch{}}
	for was, is := range values {
		out.Map[was] = becomes(is)
	}
	return out
}

// becomes is a tag's value in the place of what was found.
func becomes(value string) *xdsmatcherv3.Matcher_OnMatch {
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
		Action: matching("value", &transformv3.TransformStat{UpdateTag: &transformv3.TransformStat_UpdateTag{
			NewTagValue: value,
		}}),
	}}
}
