package translate

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
)

// tailFlush is how long an Envoy gathers entries for who watches: a row is to be there within a second of its request.
const tailFlush = 200 * time.Millisecond

// tail is the logger of those who watch the access log (docs/adr/0067-the-access-log-is-watched-by-a-runtime-key.md). It
// is in every listener and sleeps: who runs the Envoy raises the share by its admin interface while somebody watches, and
// takes what comes at a socket that the bootstrap names. Envoys of other bootstraps send nowhere.
func tail(a *configv1.AccessLog) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{
		Name: bootstrap.RuntimeTail, // another one than the sink's of the same kind
		Filter: both(byRuntime(bootstrap.RuntimeTail, 0, typev3.FractionalPercent_MILLION),
			statusByRuntime(bootstrap.RuntimeTailStatus, 0)),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(&otelv3.OpenTelemetryAccessLogConfig{
			//nolint:staticcheck // Envoy 1.40 flushes by gRPC each second, whatever buffer_flush_interval beside it says
			CommonConfig: &grpcv3.CommonGrpcAccessLogConfig{
				LogName: sinkLog, GrpcService: sender(bootstrap.TailCluster), TransportApiVersion: corev3.ApiVersion_V3,
				BufferFlushInterval: durationpb.New(tailFlush),
			},
			StatPrefix: "tail", DisableBuiltinLabels: true, Attributes: attributes(tailFields(a)),
		})},
	}
}

// tailFormats are the fields that are watched. They hold no query, which may be a secret, and none is longer than a row
// needs: who sends a request says how long its path is.
var tailFormats = map[string]constant{
	"time": "%START_TIME%", "method": "%REQ(:METHOD):32%", "scheme": "%REQ(:SCHEME):8%",
	"path": "%PATH(NQ:ORIG_OR_PATH):1024%", "host": "%REQ(:AUTHORITY):255%",
	"protocol": "%PROTOCOL%", "status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%",
	"details":        "%RESPONSE_CODE_DETAILS%",
	"bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration_ms": "%DURATION%",
	"upstream_ms": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME):16%", "upstream": "%UPSTREAM_HOST%",
	"service":  "%UPSTREAM_CLUSTER%",
	"route":    "%METADATA(ROUTE:" + metadataSpace + ":route)%",
	"listener": "%METADATA(LISTENER:" + metadataSpace + ":" + metadataListener + ")%",
	"client":   "%DOWNSTREAM_REMOTE_ADDRESS%", "server_name": "%REQUESTED_SERVER_NAME%",
	"user_agent": "%REQ(USER-AGENT):256%", "request_id": "%REQ(X-REQUEST-ID):64%",
}

// tailFields are those of a gateway: what its access log leaves out is left out here too, and what that writes otherwise,
// such as an address without its end, is written as there. What is filtered by, and what a token is bound by, stays what
// it is. Fields that a gateway adds are its log's alone.
func tailFields(a *configv1.AccessLog) map[string]format {
	out := map[string]format{}
	for name, op := range tailFormats {
		out[name] = own(op)
	}
	for name, op := range a.GetFields() {
		switch _, there := out[name]; {
		case !there:
		case op == "":
			delete(out, name)
		case name != "method" && name != "path" && name != "host" && name != "status" && name != "route":
			out[name] = allowed(op)
		}
	}
	return out
}
