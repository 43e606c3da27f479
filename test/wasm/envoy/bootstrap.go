package envoy

import (
	"encoding/json"
	"path/filepath"
)

type (
	object = map[string]any
	list   = []any
)

// capabilities are the host calls and callbacks of each filter, and nothing else: what Envoy lets it do.
var capabilities = map[string][]string{
	"metrics": {
		"proxy_on_context_create", "proxy_on_configure", "proxy_on_log", "proxy_on_memory_allocate", "proxy_log",
		"proxy_get_buffer_bytes", "proxy_get_property", "proxy_define_metric", "proxy_increment_metric", "proxy_record_metric",
	},
	"license": {
		"proxy_on_context_create", "proxy_on_configure", "proxy_on_request_headers", "proxy_on_memory_allocate", "proxy_log",
		"proxy_get_buffer_bytes", "proxy_get_property", "proxy_define_metric", "proxy_increment_metric",
		"proxy_get_header_map_pairs", "proxy_set_header_map_pairs", "proxy_get_current_time_nanoseconds", "proxy_send_local_response",
	},
	"auth": {
		"proxy_on_context_create", "proxy_on_configure", "proxy_on_request_headers", "proxy_on_memory_allocate", "proxy_log",
		"proxy_get_buffer_bytes", "proxy_get_property", "proxy_define_metric", "proxy_increment_metric",
		"proxy_get_header_map_pairs", "proxy_set_header_map_pairs", "proxy_get_current_time_nanoseconds", "proxy_send_local_response",
	},
}

// Filter is one filter of the chain: its configuration goes to Envoy as it is.
type Filter struct {
	// Name is metrics, license or auth.
	Name string
	// Configuration is what the filter gets, as JSON.
	Configuration any
}

// wasm is the filter's place in the chain.
func (f Filter) wasm(dist string) (object, error) {
	configuration, err := json.Marshal(f.Configuration)
	if err != nil {
		return nil, err
	}
	allowed := object{}
	for _, c := range capabilities[f.Name] {
		allowed[c] = object{}
	}
	policy := "FAIL_RELOAD"
	if f.Name == "metrics" {
		policy = "FAIL_OPEN"
	}
	return object{"name": "marchproxy." + f.Name, "typed_config": object{
		"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
		"config": object{
			"name":           "marchproxy." + f.Name,
			"root_id":        "marchproxy." + f.Name,
			"failure_policy": policy,
			"vm_config": object{
				"vm_id":   "marchproxy." + f.Name,
				"runtime": "envoy.wasm.runtime.v8",
				"code":    object{"local": object{"filename": filepath.Join(dist, f.Name+".wasm")}},
				"capability_restriction_config": object{
					"allowed_capabilities": allowed,
				},
			},
			"configuration": object{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": string(configuration)},
		},
	}}, nil
}

// tags are the labels of the filters' figures. A figure's name carries them as `;label=value;`.
func tags() list {
	var out list
	for _, label := range []string{"service", "route", "method", "status", "decision", "reason"} {
		out = append(out, object{"tag_name": label, "regex": `^wasmcustom\.marchproxy_[^;]+.*?(;` + label + `=([^;]*);)`})
	}
	return out
}

// bootstrap is a static configuration: one listener, one backend, the filters and then the router.
func bootstrap(c Config, dist string) (object, error) {
	chain := append(list(nil), c.Native...)
	for _, f := range c.Filters {
		w, err := f.wasm(dist)
		if err != nil {
			return nil, err
		}
		chain = append(chain, w)
	}
	chain = append(chain, object{"name": "router", "typed_config": object{
		"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
	}})
	loopback := func(port int) object {
		return object{"socket_address": object{"address": "127.0.0.1", "port_value": port}}
	}
	var routes list
	for _, r := range c.Routes {
		routes = append(routes, object{
			"match":    r.Match,
			"metadata": object{"filter_metadata": object{"marchproxy": r.Metadata}},
			"route":    object{"cluster": "backend"},
		})
	}
	last := object{"match": object{"prefix": "/"}, "route": object{"cluster": "backend"}}
	if c.Direct {
		last = object{"match": object{"prefix": "/"}, "direct_response": object{"status": 200}}
	}
	routes = append(routes, last)
	return object{
		"admin":                object{"address": loopback(0)},
		"stats_flush_interval": "0.1s",
		"stats_config": object{
			"stats_tags": tags(),
			"histogram_bucket_settings": list{object{
				"match":   object{"prefix": "wasmcustom.marchproxy_request_duration_us"},
				"buckets": list{100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 60000000},
			}},
		},
		"static_resources": object{
			"listeners": list{object{
				"name":    "main",
				"address": loopback(0),
				"filter_chains": list{object{"filters": list{object{
					"name": "http",
					"typed_config": object{
						"@type":                            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
						"stat_prefix":                      "main",
						"upgrade_configs":                  list{object{"upgrade_type": "websocket"}},
						"normalize_path":                   true,
						"merge_slashes":                    true,
						"path_with_escaped_slashes_action": "REJECT_REQUEST",
						"common_http_protocol_options":     object{"headers_with_underscores_action": "REJECT_REQUEST"},
						"http_filters":                     chain,
						"route_config": object{"virtual_hosts": list{object{
							"name": "all", "domains": list{"*"}, "routes": routes,
						}}},
					},
				}}}},
			}},
			"clusters": list{object{
				"name":            "backend",
				"type":            "STATIC",
				"connect_timeout": "1s",
				"load_assignment": object{"cluster_name": "backend", "endpoints": list{object{"lb_endpoints": list{object{
					"endpoint": object{"address": loopback(c.Backend)},
				}}}}},
			}},
		},
	}, nil
}

// JWTAuthn is Envoy's own filter for tokens, as its documentation has it, with one provider.
func JWTAuthn(provider map[string]any, keys []map[string]any) any {
	jwks, err := json.Marshal(object{"keys": keys})
	if err != nil {
		panic(err) // strings and maps of strings
	}
	provider["local_jwks"] = object{"inline_string": string(jwks)}
	return object{"name": "jwt_authn", "typed_config": object{
		"@type":     "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
		"providers": object{"p": provider},
		"rules":     list{object{"match": object{"prefix": "/"}, "requires": object{"provider_name": "p"}}},
	}}
}
