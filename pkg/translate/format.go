package translate

import (
	"regexp"
	"strings"
)

// operators are Envoy's command operators that may be used in header values and access log fields:
// true where an argument in parentheses is needed. Source: Envoy 1.40's documentation of substitution
// formatting; those that read files or the environment are left out on purpose.
var operators = map[string]bool{
	"START_TIME": false, "PROTOCOL": false, "RESPONSE_CODE": false, "RESPONSE_CODE_DETAILS": false, "RESPONSE_FLAGS": false,
	"BYTES_RECEIVED": false, "BYTES_SENT": false, "DURATION": false, "REQUEST_DURATION": false, "RESPONSE_DURATION": false,
	"UPSTREAM_HOST": false, "UPSTREAM_CLUSTER": false, "UPSTREAM_LOCAL_ADDRESS": false, "UPSTREAM_REMOTE_ADDRESS": false,
	"UPSTREAM_TRANSPORT_FAILURE_REASON": false, "UPSTREAM_REQUEST_ATTEMPT_COUNT": false,
	"DOWNSTREAM_REMOTE_ADDRESS": false, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": false, "DOWNSTREAM_REMOTE_PORT": false,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS": false, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": false,
	"DOWNSTREAM_LOCAL_ADDRESS": false, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": false, "DOWNSTREAM_LOCAL_PORT": false,
	"DOWNSTREAM_PEER_SUBJECT": false, "DOWNSTREAM_PEER_ISSUER": false, "DOWNSTREAM_PEER_SERIAL": false,
	"DOWNSTREAM_PEER_FINGERPRINT_256": false, "DOWNSTREAM_TLS_VERSION": false, "DOWNSTREAM_TLS_CIPHER": false,
	"REQUESTED_SERVER_NAME": false, "ROUTE_NAME": false, "VIRTUAL_CLUSTER_NAME": false, "CONNECTION_ID": false, "STREAM_ID": false,
	"HOSTNAME": false, "GRPC_STATUS": false,
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
