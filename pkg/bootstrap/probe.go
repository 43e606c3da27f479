package bootstrap

import "strings"

// Who runs an Envoy measures through it how soon endpoints answer: by requests to a Unix socket, which the Envoy
// sends to the endpoint that they name. So whatever belongs to a request, TLS and certificates among it, is what it
// is for any other one, and an endpoint that gets no requests, because others come first, is measured like one that
// does.

// RuntimeLatency begins the names of the runtime's entries that say what is measured: the rest is a service, and the
// value the path and the host of the requests, with a space between.
const RuntimeLatency = "marchproxy.latency."

// Headers of a request to a [ProbeSocket]: the service, and one of its endpoints, HOST:PORT in base64. None of them
// reaches the endpoint.
const (
	ProbeService  = "x-marchproxy-service"
	ProbeEndpoint = "x-marchproxy-endpoint"
)

// ProbeListener is the name of the listener, and the prefix of its statistics.
const ProbeListener = "marchproxy_probes"

// ProbeSocket is the path of the socket for probes, beside that of the admin interface; "" where that is none, or the
// kernel would not take the path.
func ProbeSocket(adminAddr string) string {
	path := strings.TrimSuffix(adminAddr, ".sock") + ".probe"
	if !strings.HasPrefix(adminAddr, "/") || len(path) > longestSocket {
		return ""
	}
	return path
}

// probes is the listener. Who opens it passes no filter of the gateway's: the user alone may that Envoy runs as, as the
// admin interface, and nothing but GET.
func probes(path string) object {
	const types = "type.googleapis.com/envoy.extensions."
	return object{
		"name": ProbeListener, "stat_prefix": ProbeListener,
		"address": object{"pipe": object{"path": path, "mode": 0o600}},
		// Measuring goes on while clients have taken all connections.
		"ignore_global_conn_limit": true,
		"filter_chains": []object{{"filters": []object{{
			"name": "envoy.filters.network.http_connection_manager",
			"typed_config": object{
				"@type": types + "filters.network.http_connection_manager.v3.HttpConnectionManager",
				// Nobody counts what the admin interface is asked among the traffic, and neither this.
				"stat_prefix": "admin", "codec_type": "HTTP1", "generate_request_id": false,
				"route_config": object{"virtual_hosts": []object{{
					"name": ProbeListener, "domains": []string{"*"},
					"request_headers_to_remove": []string{ProbeService, ProbeEndpoint},
					"routes": []object{{
						"match": object{"prefix": "/", "headers": []object{{
							"name": ":method", "string_match": object{"exact": "GET"},
						}}},
						"route": object{"cluster_header": ProbeService, "timeout": "2s"},
					}},
				}}},
				"http_filters": []object{
					{"name": "envoy.filters.http.stateful_session", "typed_config": object{
						"@type": types + "filters.http.stateful_session.v3.StatefulSession", "strict": true,
						"session_state": object{"name": "envoy.http.stateful_session.header", "typed_config": object{
							"@type": types + "http.stateful_session.header.v3.HeaderBasedSessionState", "name": ProbeEndpoint,
						}},
					}},
					{"name": "envoy.filters.http.router", "typed_config": object{
						"@type": types + "filters.http.router.v3.Router", "suppress_envoy_headers": true,
					}},
				},
			},
		}}}},
	}
}
