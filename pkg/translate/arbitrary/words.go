package arbitrary

import (
	"math"
	"strings"
)

// names are few, so that objects meet each other.
var names = map[string][]string{
	"Route": {"r1", "r2", "r3", "r4"}, "Service": {"web", "api", "s-3"}, "Gateway": {"default", "edge"},
	"Certificate":     {"site", "authority"},
	"RateLimitPolicy": {"everyone", "partners", "l-3"},
	"AuthPolicy":      {"staff", "partners", "p-3"}, "License": {"main", "trial"},
}

var (
	hosts = []string{
		"a.example.com", "b.example.com", "*.example.com", "*", "*.b.example.com", "_x.example.com",
		"1.2.3.4", "a", "xn--bcher-kva.example",
	}
	paths   = []string{"/", "/a", "/a/", "/a/b", "//", "/%2e", "/a%", "/ä", "/a;b=c", "/.", "/a//", "/%25"}
	regexes = []string{
		"/.*", "/a(b)c", "a|b", ".*", "(?i)/x", `/\d+`, "/[^/]+/.*", "^/a$", "(/a)?", "x{1000}",
		`\x{10FFFF}`, `\pL+`, "(?P<n>/a)", `\Q.\E`, "", "(((((((((((a)))))))))))", `\C`, "[[:word:]]", "(?s).*", `/a\z`, "$",
		"a**", "(?m)^",
	}
	headers = []string{
		"x-a", "X-B", "host", ":path", ":authority", ":method", ":scheme", ":status", "content-length",
		"transfer-encoding", "connection", "x-envoy-retry-on", "grpc-timeout", "te", "x-marchproxy-scope", "cookie",
		"set-cookie", "x_under", "!#$", "upgrade", ":x", "content-type",
	}
	formats = []string{
		"v", "", "%%", "%REQ(x-a)%", "%REQ(x-a?:path):10%", "%RESPONSE_CODE%", "%DOWNSTREAM_REMOTE_ADDRESS%", "%START_TIME%",
		"%UPSTREAM_HOST%",
		"%TRAILER(x)%", "%HOSTNAME%", "%GRPC_STATUS%", "%STREAM_ID%", "a%b", "%REQ()%", "%REQ(:authority)%",
		"%REQ(x-a):9999%", "%REQ(x-a):0%", "ä", "\t", " ", "%DURATION%%%", "%CONNECTION_ID%", "%VIRTUAL_CLUSTER_NAME%",
		"%DOWNSTREAM_PEER_SERIAL%", "%RESP(x)%", "%PROTOCOL%", "{", "}", "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
		strings.Repeat("x", 8192),
	}
	networks = []string{
		"203.0.113.0/24", "203.0.113.7", "203.0.113.0/25", "0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32",
		"2001:db8::1", "::/0", "127.0.0.1/32", "::ffff:1.2.3.4", "10.0.0.1/8", "fe80::1", "255.255.255.255", "0.0.0.0/1",
		"::1/128", "1.2.3.4/33",
	}
	oddities = []string{
		"", "x", "é", "\u2028", "\x01", "\x7f", "a b", "\n", "\\", "%", "\"", "'", "]]", "..", "*", "/",
		":", strings.Repeat("a", 253), "\U0010ffff", "<script>", "-", "0",
	}
)

// words are by the field's name, or its message's and its own.
var words = map[string][]string{
	"hosts": hosts, "host": {
		"a.example.com", "127.0.0.1", "::1", "localhost", "b.example.com", "A.Example.COM", "fe80::1",
		"::ffff:1.2.3.4", "0.0.0.0", "a.example.com.", "1.2.3.4",
	},
	"exact": paths, "prefix": paths, "path": paths, "suffix": {".js", "x", "/"},
	"regex": regexes, "pattern": regexes, "substitution": {"", "/", `\1`, `\0`, `\9`, `\\`, "/x", `\`, `/\1/y`, "ä"},
	"methods": {"GET", "POST", "CONNECT", "M-SEARCH", "PURGE", "OPTIONS"}, "service": names["Service"],
	"gateways": names["Gateway"], "listeners": {"http", "https", "l3"},
	"Listener.name": {"http", "https", "l3"}, "certificates": names["Certificate"], "ca_certificate": names["Certificate"],
	"client_certificate": names["Certificate"],
	"NamedMatch.name":    headers, "HeaderValue.name": headers, "remove": headers, "header": headers,
	"HashCookie.name": {"c", "!", "c-d"}, "query": {"q", "a b", "é", "&"},
	"value": formats, "key": {"time", "status", "extra", "a.b", "_x"}, "scheme": {"http", "https", ""}, "sni": hosts,
	"GrpcCheck.service": {"", "a.b.C"},
	"conditions": {
		"5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx", "refused-stream",
		"retriable-status-codes", "cancelled", "unavailable",
	},
	"allow_methods": {"GET", "PUT", "*"}, "allow_headers": {"x-a", "*", "X-B"}, "expose_headers": {"x-a", "*"},
	"content_type": {"text/plain", "application/json; charset=utf-8", "a/b"},
	"address":      {"", "0.0.0.0", "127.0.0.1", "::", "::1", "1.2.3"}, "zone": {"a", "b", "é"}, "cloud": {"x", "y"},
	"body":  {"", "ok", "é", "%REQ(x)%", "\r\n"},
	"cidrs": networks, "allow": networks, "deny": networks, "RateLimitPolicy.key": {"zone", "role"},
	"RateLimitPolicy.value": {"a", "b", ""},
	"directory":             {"letsencrypt", "https://a.example.com/d", "x"}, "contacts": {"a@example.com"}, "profile": {"", "p"},
	"trusted_ca": {""}, "certificate_issuer": {"x-1"}, "key_id": {"k"}, "key_name": {"k"}, "mac_key": {"a2V5", ""},
	"Rfc2136.key": {"a2V5", ""}, "Rfc2136.server": {"192.0.2.53"}, "Rfc2136.zone": {"", "example.com"},
	"name_servers": {"192.0.2.53"}, "ChallengeResponse.host": hosts, "ChallengeResponse.id": {"a1", "b-2"},
	"ChallengeResponse.body": {"a1.x", "b-2.y"},
	"StringMatch.exact":      {"", "v", "é", "\x01", " "}, "StringMatch.prefix": {"v", "é", "\t"},
}

// wanted are fields that hardly anything works without.
var wanted = map[string]bool{
	"marchproxy.config.v1.Service.endpoints": true, "marchproxy.config.v1.Endpoint.host": true,
	"marchproxy.config.v1.Endpoint.port":     true,
	"marchproxy.config.v1.Gateway.listeners": true, "marchproxy.config.v1.Listener.name": true,
	"marchproxy.config.v1.Listener.port":   true,
	"marchproxy.config.v1.Backend.service": true, "marchproxy.config.v1.NamedMatch.name": true,
	"marchproxy.config.v1.NamedMatch.value": true,
	"marchproxy.config.v1.HeaderValue.name": true, "marchproxy.config.v1.Mirror.service": true,
	"marchproxy.config.v1.LocalRateLimit.requests": true,
	"marchproxy.config.v1.RegexRewrite.pattern":    true, "marchproxy.config.v1.DirectResponse.status": true,
	"marchproxy.config.v1.Tracing.service":                     true,
	"marchproxy.config.v1.RateLimitPolicy.requests_per_second": true, "marchproxy.config.v1.AuthPolicy.jwt": true,
	"marchproxy.config.v1.JwtKey.kid":       true,
	"marchproxy.config.v1.JwtKey.algorithm": true, "marchproxy.config.v1.Jwt.keys": true,
	"marchproxy.config.v1.RemoteJwks.service": true, "marchproxy.config.v1.RemoteJwks.path": true,
	"marchproxy.config.v1.RequiredClaim.claim": true, "marchproxy.config.v1.ForwardedClaim.claim": true,
	"marchproxy.config.v1.ForwardedClaim.header": true,
	"marchproxy.config.v1.OpaqueToken.name":      true, "marchproxy.config.v1.ExemptPath.path": true,
	"marchproxy.config.v1.FeatureGate.feature": true, "marchproxy.config.v1.FeatureGate.paths": true,
	"marchproxy.config.v1.HashCookie.name": true, "marchproxy.config.v1.ClientAuth.hosts": true,
	"marchproxy.config.v1.ClientAuth.ca_certificate":   true,
	"marchproxy.config.v1.CertificateIssuer.directory": true, "marchproxy.config.v1.CertificateIssuer.terms_agreed": true,
	"marchproxy.config.v1.ExternalAccount.key_id": true, "marchproxy.config.v1.Dns01.rfc2136": true,
	"marchproxy.config.v1.Rfc2136.server": true, "marchproxy.config.v1.Rfc2136.key_name": true,
	"marchproxy.config.v1.OrderLimit.orders":             true,
	"marchproxy.config.v1.CertificateChallenge.gateways": true, "marchproxy.config.v1.CertificateChallenge.responses": true,
	"marchproxy.config.v1.ChallengeResponse.host": true, "marchproxy.config.v1.ChallengeResponse.id": true,
	"marchproxy.config.v1.ChallengeResponse.body": true,
}

var (
	numbers = []uint32{
		1, 0, 2, 3, 200, 10000, 301, 302, 308, 404, 503, 599, 65535, 10443, 100, 1000, 65537, 4099,
		1000000, 8388608, 1000000000, math.MaxInt32, math.MaxUint32, 15, 16, 7,
	}
	percents = []float64{0, 1, 100, 0.0001, 0.00001, 99.99999, 50, math.Inf(1), math.NaN(), math.Copysign(0, -1), 1e-300}
	// durations are seconds and nanoseconds.
	durations = [][2]int64{
		{1, 0},
		{0, 0},
		{0, 1},
		{0, 1e6},
		{0, 25e6},
		{0, 50e6},
		{0, 999999999},
		{5, 0},
		{60, 0},
		{3600, 0},
		{86400, 0},
		{86400, 1},
		{31536000, 0},
		{0, -1},
		{2, 500000000},
		{0, 1500000},
	}
)
