package explain

import (
	"slices"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/filterconfig"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// fields are a request's headers as routes and filters find them, the pseudo-headers among them, by names in lower case.
type fields []filterconfig.Header

// get is a header's value, those of several joined; not there is another thing than empty.
func (f fields) get(name string) (value string, there bool) {
	values := f.all(name)
	return strings.Join(values, ","), len(values) > 0
}

// all are the values of a header that comes several times.
func (f fields) all(name string) (values []string) {
	name = strings.ToLower(name)
	if name == "host" { // the same to Envoy
		name = ":authority"
	}
	for _, h := range f {
		if h.Name == name {
			values = append(values, h.Value)
		}
	}
	return values
}

// set replaces a header.
func (f *fields) set(name, value string) {
	for i, h := range *f {
		if h.Name == name {
			(*f)[i].Value = value
			return
		}
	}
	*f = append(*f, filterconfig.Header{Name: name, Value: value})
}

// join adds to a header of which Envoy keeps one: its values with commas between them, without those that are empty.
func (f *fields) join(name, value string) {
	switch was, there := f.get(name); {
	case there && value == "":
	case there && was != "":
		f.set(name, was+","+value)
	default:
		f.set(name, value)
	}
}

// ofEnvoy are headers that Envoy takes from a client: they are for those behind it to set.
var ofEnvoy = []string{
	"x-envoy-internal", "x-envoy-decorator-operation", "x-envoy-downstream-service-cluster",
	"x-envoy-downstream-service-node", "x-envoy-expected-rq-timeout-ms", "x-envoy-external-address",
	"x-envoy-force-trace", "x-envoy-hedge-on-per-try-timeout", "x-envoy-ip-tags", "x-envoy-is-timeout-retry",
	"x-envoy-max-retries", "x-envoy-original-url", "x-envoy-retriable-header-names", "x-envoy-retriable-status-codes",
	"x-envoy-retry-grpc-on", "x-envoy-retry-on", "x-envoy-upstream-alt-stat-name",
	"x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-upstream-rq-timeout-alt-response",
	"x-envoy-upstream-rq-timeout-ms", "x-forwarded-client-cert", "x-forwarded-proto", "x-request-id",
}

// joined are the headers of which Envoy keeps one: those that it has a place of its own for. Of any other each value is kept,
// and looked at, by itself.
var joined = []string{
	"accept", "accept-encoding", "access-control-request-headers", "access-control-request-method",
	"access-control-request-private-network", "authentication", "authorization", "cache-control", "cdn-loop",
	"content-encoding", "content-type", "expect", "grpc-accept-encoding", "grpc-timeout", "if-match", "if-modified-since",
	"if-none-match", "if-range", "if-unmodified-since", "origin", "pragma", "proxy-status", "referer", "user-agent", "via",
	"x-forwarded-host", "x-forwarded-port",
}

// hops are headers of one connection, which Envoy takes away before it looks for a route.
var hops = []string{"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}

// ofHop is what Envoy leaves of a header of one connection: what asks for another protocol on it, and for trailers.
func ofHop(name, value string, upgrade bool) (left string, stays bool) {
	switch name {
	case "connection", "upgrade":
		return value, upgrade
	case "te":
		return "trailers", hasToken(value, "trailers")
	}
	return "", false
}

// hasToken says whether a list between commas has a token, in whatever case.
func hasToken(list, token string) bool {
	for t := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(t), token) {
			return true
		}
	}
	return false
}

// unknown stands for a value that Envoy makes up.
const unknown = "\x00"

// headers are a request's as Envoy has them: with those that it takes away and sets itself.
func headersOf(r Request, path, authority string) fields {
	out := fields{
		{Name: ":authority", Value: authority},
		{Name: ":path", Value: path},
		{Name: ":method", Value: r.Method},
		{Name: ":scheme", Value: r.Scheme},
	}
	upgrade := slices.ContainsFunc(r.Headers, func(h filterconfig.Header) bool {
		return strings.EqualFold(h.Name, "connection") && hasToken(h.Value, "upgrade")
	})
	forwarded := ""
	for _, h := range r.Headers {
		name, value := strings.ToLower(h.Name), strings.Trim(h.Value, " \t")
		switch {
		case slices.Contains(ofEnvoy, name), name == translate.ScopeHeader:
		case slices.Contains(hops, name):
			if left, stays := ofHop(name, value, upgrade); stays {
				out.join(name, left)
			}
		case name == "x-forwarded-for":
			if forwarded != "" {
				forwarded += ","
			}
			forwarded += value
		case slices.Contains(joined, name):
			out.join(name, value)
		default:
			out = append(out, filterconfig.Header{Name: name, Value: value})
		}
	}
	address := unknown
	if r.Source.IsValid() {
		address = r.Source.String()
		out.set("x-envoy-external-address", address)
	}
	if forwarded != "" {
		address = forwarded + "," + address
	}
	out.set("x-forwarded-for", address)
	out.set("x-forwarded-proto", r.Scheme)
	out.set("x-request-id", unknown)
	return out
}

// isGRPC says whether a client is told by a gRPC status what Envoy answers.
func (f fields) isGRPC() bool {
	ct, _ := f.get("content-type")
	rest, is := strings.CutPrefix(ct, "application/grpc")
	return is && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcStatus is the gRPC status of an HTTP status (the gRPC project's http-grpc-status-mapping).
func grpcStatus(status int) int32 {
	switch status {
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}
