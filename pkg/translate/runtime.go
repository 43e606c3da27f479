package translate

import (
	"cmp"
	"maps"
	"slices"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Some settings of a listener Envoy can read from its runtime at each request. These come by RTDS, and the listener has
// only their keys, so that a change of them drains no connection. An Envoy whose bootstrap has no layer for the
// gateway's runtime gets a variant of the listener ([Resource.Plain]) that has the values themselves.
const (
	keyAccessLog = "marchproxy.access_log"
	keyMinStatus = "marchproxy.access_log_min_status"
	keyMetrics   = "marchproxy.metrics"
	keySampling  = "tracing.random_sampling" // Envoy's own
)

// maxMeasured is how many services of a gateway are measured, the first ones by name: who measures reads all of the
// runtime every few seconds.
const maxMeasured = 100

// probeOf is by what request it is measured how soon a service's endpoints answer; "" where it is not.
func probeOf(name string, s *configv1.Service) string {
	h := s.GetHealthCheck().GetHttp()
	if s.GetLocality().GetLatency() == nil || h == nil {
		return ""
	}
	return cmp.Or(h.GetPath(), "/") + " " + cmp.Or(h.GetHost(), name)
}

// runtimeLayer is a gateway's layer. Measured are the requests by which services are measured, by name.
func runtimeLayer(name string, g *configv1.Gateway, measured map[string]string) *Resource {
	layer := map[string]*structpb.Value{
		// For the agent, which tells Envoy when it starts it.
		bootstrap.RuntimeDrain: structpb.NewNumberValue(DrainTime(g).Truncate(time.Second).Seconds()),
	}
	for i, service := range slices.Sorted(maps.Keys(measured)) {
		if i < maxMeasured {
			layer[bootstrap.RuntimeLatency+service] = structpb.NewStringValue(measured[service])
		}
	}
	switchSinks(layer, g.GetAccessLog())
	if metrics(g) == configv1.Gateway_native {
		layer[keyMetrics] = structpb.NewNumberValue(100)
	}
	if t := g.GetTracing(); t != nil {
		layer[keySampling] = share(percent(t))
	}
	return newResource(bootstrap.RuntimeLayer, &runtimev3.Runtime{
		Name: bootstrap.RuntimeLayer, Layer: &structpb.Struct{Fields: layer},
	}, nil, resource.Ref{Kind: resource.KindGateway, Name: name})
}

// DrainTime is how long connections of a gateway may go on that came through what a change has replaced, as it
// is configured.
func DrainTime(g *configv1.Gateway) time.Duration {
	if g.GetDrainTime() == nil {
		return bootstrap.DefaultDrainTime
	}
	return g.GetDrainTime().AsDuration()
}

// share is a percentage as Envoy's tracing reads it; its access log reads whole numbers alone.
func share(percent float64) *structpb.Value {
	return structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
		"numerator":   structpb.NewNumberValue(float64(millionths(percent))),
		"denominator": structpb.NewStringValue("MILLION"),
	}})
}

func percent(t *configv1.Tracing) float64 {
	if t.Percent == nil {
		return 1
	}
	return t.GetPercent()
}

// byRuntime lets the share of requests through that the runtime says, and another one where that says nothing. Envoy
// reads a whole number there, of the denominator that stands here.
func byRuntime(
	key string, otherwise uint32, of typev3.FractionalPercent_DenominatorType,
) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_RuntimeFilter{
		RuntimeFilter: &accesslogv3.RuntimeFilter{
			RuntimeKey: key, PercentSampled: &typev3.FractionalPercent{Numerator: otherwise, Denominator: of},
			UseIndependentRandomness: true,
		},
	}}
}

// fromStatus lets answers through with a status or above, unless the runtime has another one.
func fromStatus(status uint32) *accesslogv3.AccessLogFilter {
	return statusByRuntime(keyMinStatus, status)
}

func statusByRuntime(key string, status uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
			Op: accesslogv3.ComparisonFilter_GE, Value: &corev3.RuntimeUInt32{DefaultValue: status, RuntimeKey: key},
		}},
	}}
}
