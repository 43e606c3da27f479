package translate

import (
	"regexp"
	"strings"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/types/known/structpb"
)

// format is a text in which Envoy expands operators, such as %REQ(x-user)%: into a header's value, a line of the log or
// a metric. Envoy knows operators that read its environment and its files, so what somebody else wrote gets into such a
// place by this type alone. Its constructors are literal, allowed and own; the functions below are the only ones that
// fill the fields of Envoy's configuration which are formats (TestFormats looks for others).
type format struct{ text string }

// literal is a text that Envoy gives out as it is.
func literal(s string) format { return format{strings.ReplaceAll(s, "%", "%%")} }

// allowed is a format that somebody wrote. What checkFormat refuses is no format and given out as it is.
func allowed(s string) format {
	if checkFormat(s) != "" {
		return literal(s)
	}
	return format{plainRoute(s)}
}

// constant is a text of this program's own: a variable does not become one by itself.
type constant string

// own is a format of this program's own.
func own(s constant) format { return format{string(s)} }

// then is one format after another.
func (f format) then(g format) format { return format{f.text + g.text} }

// header is a header with a value for each request or answer.
func header(name string, value format, how corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, Value: value.text}, AppendAction: how, KeepEmptyValue: value.text == "",
	}
}

// replace is a header in the place of others of its name.
func replace(name string, value format) *corev3.HeaderValueOption {
	return header(name, value, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
}

// jsonFormat is an object with a member for each format; what is empty is left out.
func jsonFormat(members map[string]format) *corev3.SubstitutionFormatString {
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, f := range members {
		out.Fields[name] = structpb.NewStringValue(f.text)
	}
	return &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: out}, OmitEmptyValues: true,
	}
}

// attributes are what a log record of OpenTelemetry says.
func attributes(members map[string]format) *commonv1.KeyValueList {
	out := &commonv1.KeyValueList{}
	for _, name := range sorted(members) {
		out.Values = append(out.Values, &commonv1.KeyValue{Key: name, Value: &commonv1.AnyValue{
			Value: &commonv1.AnyValue_StringValue{StringValue: members[name].text},
		}})
	}
	return out
}

// customTags are what an entry of Envoy's access log service says beside what it always has.
func customTags(members map[string]format) []*tracingv3.CustomTag {
	var out []*tracingv3.CustomTag
	for _, name := range sorted(members) {
		out = append(out, &tracingv3.CustomTag{Tag: name, Type: &tracingv3.CustomTag_Value{Value: members[name].text}})
	}
	return out
}

// textFormat is the body of an answer of Envoy's own.
func textFormat(f format, contentType string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inline(f.text)}, ContentType: contentType,
	}
}

// tag is a metric's tag.
func tag(name string, f format, rules *xdsmatcherv3.Matcher) *statsv3.Config_Tag {
	return &statsv3.Config_Tag{Name: name, ValueFormat: f.text, Rules: rules}
}

// counter counts what a format gives.
func counter(stat *statsv3.Config_Stat, f format) *statsv3.Config_Counter {
	return &statsv3.Config_Counter{Stat: stat, ValueFormat: f.text}
}

// histogram has what a format gives in a histogram.
func histogram(stat *statsv3.Config_Stat, f format) *statsv3.Config_Histogram {
	return &statsv3.Config_Histogram{Stat: stat, ValueFormat: f.text}
}

// operators are Envoy's command operators that may be used in header values and access log fields:
// true where an argument in parentheses is needed. Source: Envoy 1.40's documentation of substitution
// formatting; those that read files or the environment are left out on purpose.
var operators = map[string]bool{
	"START_TIME": false, "PROTOCOL": false, "RESPONSE_CODE": false, "RESPONSE_CODE_DETAILS": false,
	"RESPONSE_FLAGS": false,
	"BYTES_RECEIVED": false, "BYTES_SENT": false, "DURATION": false, "REQUEST_DURATION": false, "RESPONSE_DURATION": false,
	"UPSTREAM_HOST": false, "UPSTREAM_CLUSTER": false, "UPSTREAM_LOCAL_ADDRESS": false, "UPSTREAM_REMOTE_ADDRESS": false,
	"UPSTREAM_TRANSPORT_FAILURE_REASON": false, "UPSTREAM_REQUEST_ATTEMPT_COUNT": false,
	"DOWNSTREAM_REMOTE_ADDRESS": false, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": false, "DOWNSTREAM_REMOTE_PORT": false,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS": false, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": false,
	"DOWNSTREAM_LOCAL_ADDRESS": false, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": false, "DOWNSTREAM_LOCAL_PORT": false,
	"DOWNSTREAM_PEER_SUBJECT": false, "DOWNSTREAM_PEER_ISSUER": false, "DOWNSTREAM_PEER_SERIAL": false,
	"DOWNSTREAM_PEER_FINGERPRINT_256": false, "DOWNSTREAM_TLS_VERSION": false, "DOWNSTREAM_TLS_CIPHER": false,
	"REQUESTED_SERVER_NAME": false, "ROUTE_NAME": false, "VIRTUAL_CLUSTER_NAME": false, "CONNECTION_ID": false,
	"STREAM_ID": false,
	"HOSTNAME":  false, "GRPC_STATUS": false,
	"REQ": true, "RESP": true, "TRAILER": true,
}

var (
	operator  = regexp.MustCompile(`^([A-Z][A-Z0-9_]*)(?:\(([^()%\x00-\x1f]*)\))?(?::([0-9]{1,4}))?$`)
	fieldName = regexp.MustCompile(`^:?[!#$&'*+.^_|~0-9A-Za-z-]+(\?:?[!#$&'*+.^_|~0-9A-Za-z-]+)?$`)
)

// plainRoute has a format give the route's plain name where it asks for the one that Envoy knows, which is RouteName.
// The format is one that checkFormat took.
func plainRoute(format string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(format, "%")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		op, after, _ := strings.Cut(rest, "%") // empty for %%
		if op == "ROUTE_NAME" {
			op = "METADATA(ROUTE:" + metadataSpace + ":route)"
		}
		out.WriteString("%" + op + "%")
		format = after
	}
}

// checkFormat says what is wrong with a text that Envoy reads as a format, or returns "".
func checkFormat(s string) string {
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			return ""
		}
		s = s[i+1:]
		if strings.HasPrefix(s, "%") {
			s = s[1:]
			continue
		}
		end := strings.IndexByte(s, '%')
		if end < 0 {
			return "has a % that begins no operator; write %% for a percent sign"
		}
		m := operator.FindStringSubmatch(s[:end])
		if m == nil {
			return "has %" + s[:end] + "%, which is no operator; write %% for a percent sign"
		}
		argument, known := operators[m[1]]
		switch {
		case !known:
			return "uses %" + m[1] + "%, which is not known or not allowed here"
		case argument && !fieldName.MatchString(m[2]):
			return "uses %" + m[1] + "%, which needs a header's name in parentheses"
		case !argument && m[2] != "":
			return "uses %" + m[1] + "%, which takes no argument"
		case !argument && m[3] != "":
			return "uses %" + m[1] + "%, which takes no length"
		}
		s = s[end+1:]
	}
}
