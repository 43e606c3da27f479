package translate

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// refusals makes the answers by which Envoy's own filters refuse a request those of our filter
// (wasm-filters/auth/src/reason.rs): the same status, JSON and challenge. Which filter serves a policy is no business
// of a client's. These answers are known by their response code details, which nothing else has: neither a backend's
// answer nor another one of Envoy's is changed. Every listener has all of this, whatever its policies, because a change
// of a listener ends connections, and a change of a policy must not.
func refusals() *hcmv3.LocalReplyConfig {
	const denied = "jwt_authn_access_denied{"
	mapper := func(from, to uint32, details, challenge, title, reason string) *hcmv3.ResponseMapper {
		return &hcmv3.ResponseMapper{
			Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
				AndFilter: &accesslogv3.AndFilter{
					// The status first: it costs nothing, and most answers are let go by it.
					Filters: []*accesslogv3.AccessLogFilter{status(from), expression(details)},
				},
			}},
			StatusCode: wrapperspb.UInt32(to),
			// Without a format of the body the text would go where Envoy's own text goes, and be of its type.
			BodyFormatOverride: textFormat(literal(`{"error":"`+title+`","reason":"`+reason+`"}`+"\n"), "application/json"),
			HeadersToAdd: []*corev3.HeaderValueOption{
				replace("www-authenticate", literal(`Bearer realm="marchproxy"`+challenge)),
				replace("cache-control", literal("no-store")),
			},
		}
	}
	const invalid = `, error="invalid_token"`
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{
		// What the host filter refuses.
		{
			Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
				AndFilter: &accesslogv3.AndFilter{
					Filters: []*accesslogv3.AccessLogFilter{status(400), expression(`== "fault_filter_abort"`)},
				},
			}},
			BodyFormatOverride: textFormat(literal("the request's host is not a host's name\n"), "text/plain"),
		},
		// RFC 6750 §3.1: no error code for a request that brought no credentials.
		mapper(401, 401, `== "`+denied+`Jwt_is_missing}"`, "", "unauthorized", "missing_credentials"),
		mapper(401, 401, `== "`+denied+`Jwt_is_expired}"`, invalid, "unauthorized", "expired_token"),
		// Nothing is wrong with the token that anybody knows: the keys cannot be had.
		mapper(401, 503, `== "`+denied+`Jwks_remote_fetch_is_failed}"`, "", "unavailable", "unavailable"),
		mapper(403, 503, `.startsWith("`+denied+`Wrong_requirement_name")`, "", "unavailable", "unavailable"),
		mapper(401, 401, `.startsWith("`+denied+`")`, invalid, "unauthorized", "invalid_token"),
		// The wrong audience.
		mapper(403, 401, `.startsWith("`+denied+`")`, invalid, "unauthorized", "invalid_token"),
		mapper(403, 403, `.startsWith("rbac_access_denied_matched_policy[")`, `, error="insufficient_scope"`, "forbidden",
			"insufficient_claims"),
	}}
}

func status(code uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{
			Comparison: &accesslogv3.ComparisonFilter{
				Op:    accesslogv3.ComparisonFilter_EQ,
				Value: &corev3.RuntimeUInt32{DefaultValue: code, RuntimeKey: "marchproxy.refusal"},
			},
		},
	}}
}

func expression(details string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
		ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name: "envoy.access_loggers.extension_filters.cel",
			ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{
				TypedConfig: pack(&celv3.ExpressionFilter{Expression: "response.code_details" + details}),
			},
		},
	}}
}
