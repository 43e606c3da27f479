package translate

import (
	"maps"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
)

// Every listener has all sinks of the access log, whether they are in use or not: the runtime says which ones are, and of
// how many requests, so that none is switched by a change of the listener, which would end connections. Those that send
// name a cluster of their own, which leads to another service as soon as CDS says so. Envoy neither waits for such a
// cluster nor minds that there is none (docs/adr/0054-sinks-stand-in-every-listener.md).

// sink is a place where entries of the access log go.
type sink struct {
	name, key string
	// cluster is where one sends to; "" for one at the node.
	cluster string
	// share is how much of the requests a gateway's setting asks for, in percent; 0 for none.
	share func(a *configv1.AccessLog) float64
	// service is what cluster leads to; nil for one at the node.
	service func(a *configv1.AccessLog) string
	// config is Envoy's of it.
	config func(gateway string, a *configv1.AccessLog, fields map[string]format) proto.Message
}

const (
	sinkPrefix = "access-log/"
	// sinkLog is what collectors are told the log is called.
	sinkLog = "marchproxy"
)

// sinks are all of them, in the order in which a request meets them.
var sinks = []sink{
	{
		name: "envoy.access_loggers.stdout", key: keyAccessLog,
		share: func(a *configv1.AccessLog) float64 {
			switch s := a.GetStdout(); {
			case a == nil:
				return 0
			case s == nil:
				return 100
			default:
				return shareOf(s.Percent)
			}
		},
		config: func(_ string, _ *configv1.AccessLog, fields map[string]format) proto.Message {
			return &streamv3.StdoutAccessLog{
				AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: jsonFormat(fields)},
			}
		},
	},
	{
		name: "envoy.access_loggers.file", key: keyAccessLog + ".file",
		share: func(a *configv1.AccessLog) float64 {
			if s := a.GetFile(); s != nil {
				return shareOf(s.Percent)
			}
			return 0
		},
		config: func(_ string, _ *configv1.AccessLog, fields map[string]format) proto.Message {
			return &filev3.FileAccessLog{
				Path:            bootstrap.AccessLogFile,
				AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: jsonFormat(fields)},
			}
		},
	},
	{
		name: "envoy.access_loggers.open_telemetry", key: keyAccessLog + ".otlp", cluster: sinkPrefix + "otlp",
		share: func(a *configv1.AccessLog) float64 {
			if s := a.GetOtlp(); s != nil {
				return shareOf(s.Percent)
			}
			return 0
		},
		service: func(a *configv1.AccessLog) string { return a.GetOtlp().GetService() },
		config: func(gateway string, _ *configv1.AccessLog, fields map[string]format) proto.Message {
			return &otelv3.OpenTelemetryAccessLogConfig{
				GrpcService: sender(sinkPrefix + "otlp"), LogName: sinkLog, StatPrefix: "otlp",
				ResourceAttributes: attributes(map[string]format{"service.name": literal("marchproxy-" + gateway)}),
				Attributes:         attributes(fields),
			}
		},
	},
	{
		name: "envoy.access_loggers.http_grpc", key: keyAccessLog + ".grpc", cluster: sinkPrefix + "grpc",
		share: func(a *configv1.AccessLog) float64 {
			if s := a.GetGrpc(); s != nil {
				return shareOf(s.Percent)
			}
			return 0
		},
		service: func(a *configv1.AccessLog) string { return a.GetGrpc().GetService() },
		config: func(_ string, a *configv1.AccessLog, fields map[string]format) proto.Message {
			// What the message of Envoy's has of itself needs no tags. The route's name there is RouteName.
			tags := map[string]format{}
			for name, f := range fields {
				if _, asked := a.GetFields()[name]; asked || name == "route" {
					tags[name] = f
				}
			}
			return &grpcv3.HttpGrpcAccessLogConfig{CommonConfig: &grpcv3.CommonGrpcAccessLogConfig{
				LogName: sinkLog, GrpcService: sender(sinkPrefix + "grpc"),
				TransportApiVersion: corev3.ApiVersion_V3, CustomTags: customTags(tags),
			}}
		},
	},
}

// shareOf is the share, in percent, of a sink that says so much.
func shareOf(percent *float64) float64 {
	if percent == nil {
		return 100
	}
	return *percent
}

// sender is how a sink reaches its collector.
func sender(cluster string) *corev3.GrpcService {
	return &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster},
	}}
}

// IsSink says whether a cluster is where entries of the access log go, and not what requests are sent to.
func IsSink(cluster string) bool { return strings.HasPrefix(cluster, sinkPrefix) }

// collectors are the services of the sinks that are in use, by cluster.
func collectors(g *configv1.Gateway) map[string]string {
	out := map[string]string{}
	for _, s := range sinks {
		if s.service == nil {
			continue
		}
		// One whose share is none keeps its cluster, so that no entry is lost when that is raised.
		if name := s.service(g.GetAccessLog()); name != "" {
			out[s.cluster] = name
		}
	}
	return out
}

// sinkRequests is how many batches of a sink may be on their way, where its service says nothing: each is up to 16 KiB of
// entries, which an Envoy keeps until the collector has answered.
const sinkRequests = 64

// boundSink limits what an Envoy keeps for a collector that does not answer.
func boundSink(c *clusterv3.Cluster, s *configv1.Service) {
	for _, t := range c.GetCircuitBreakers().GetThresholds() {
		if s.GetCircuitBreaker().GetMaxRequests() == 0 {
			t.MaxRequests = wrapperspb.UInt32(sinkRequests)
		}
		if s.GetCircuitBreaker().GetMaxPendingRequests() == 0 {
			t.MaxPendingRequests = wrapperspb.UInt32(sinkRequests)
		}
	}
}

// logFields are the access log's fields, as Envoy's operators.
var logFields = map[string]constant{
	"time": "%START_TIME%", "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
	"host":     "%REQ(:AUTHORITY)%",
	"protocol": "%PROTOCOL%", "status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%",
	"details":        "%RESPONSE_CODE_DETAILS%",
	"bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration_ms": "%DURATION%",
	"upstream_ms": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "upstream": "%UPSTREAM_HOST%", "service": "%UPSTREAM_CLUSTER%",
	"route": "%METADATA(ROUTE:" + metadataSpace + ":route)%", "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
	"server_name": "%REQUESTED_SERVER_NAME%",
	"user_agent":  "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%",
}

// logFormat are the fields of a gateway's log.
func logFormat(a *configv1.AccessLog) map[string]format {
	out := map[string]format{}
	for name, op := range logFields {
		out[name] = own(op)
	}
	for name, op := range a.GetFields() {
		if op == "" {
			delete(out, name)
		} else {
			out[name] = allowed(op)
		}
	}
	return out
}

// accessLogs are there whether they are on or not, with the standard fields where there is no log; plain, where they are
// on. Plain, there is no file: its place is what such an Envoy does not say that it has.
func accessLogs(gateway string, a *configv1.AccessLog, plain bool) []*accesslogv3.AccessLog {
	fields := logFormat(a)
	var out []*accesslogv3.AccessLog
	for _, s := range sinks {
		share := s.share(a)
		if plain && (share == 0 || s.name == "envoy.access_loggers.file") {
			continue
		}
		l := &accesslogv3.AccessLog{Name: s.name, ConfigType: &accesslogv3.AccessLog_TypedConfig{
			TypedConfig: pack(s.config(gateway, a, fields)),
		}}
		if plain {
			l.Filter = always(s.key, share, a.GetMinStatus())
		} else {
			l.Filter = both(byRuntime(s.key, 0, typev3.FractionalPercent_MILLION), fromStatus(0))
		}
		out = append(out, l)
	}
	if !plain { // another bootstrap has neither the runtime that wakes it nor the cluster that it sends to
		out = append(out, tail(a))
	}
	return out
}

// always is the filter of an Envoy without the runtime that has the values; nil where every request passes.
func always(key string, share float64, status uint32) *accesslogv3.AccessLogFilter {
	var filters []*accesslogv3.AccessLogFilter
	if share < 100 {
		filters = append(filters, byRuntime(key, millionths(share), typev3.FractionalPercent_MILLION))
	}
	if status > 0 {
		filters = append(filters, fromStatus(status))
	}
	switch len(filters) {
	case 0:
		return nil
	case 1:
		return filters[0]
	}
	return both(filters...)
}

func both(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: filters},
	}}
}

// millionths is a percentage as a whole number.
func millionths(percent float64) uint32 { return uint32(percent * 10000) }

// switchSinks says which sinks are in use, in a layer of the runtime. Those that are not have no key.
func switchSinks(layer map[string]*structpb.Value, a *configv1.AccessLog) {
	if a == nil {
		return
	}
	layer[keyMinStatus] = structpb.NewNumberValue(float64(a.GetMinStatus()))
	for _, s := range sinks {
		if n := millionths(s.share(a)); n > 0 {
			layer[s.key] = structpb.NewNumberValue(float64(n))
		}
	}
}

// sorted are the names of members, so that equal ones are equal bytes.
func sorted(members map[string]format) []string { return slices.Sorted(maps.Keys(members)) }
