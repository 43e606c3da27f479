package envoy

import (
	"encoding/json"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"

	boot "github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

type (
	object = map[string]any
	list   = []any
)

// Filter is one filter of the chain: its configuration goes to Envoy as it is.
type Filter struct {
	// Name is metrics, license or auth, or another one where Module is set.
	Name string
	// Configuration is what the filter gets, as JSON.
	Configuration any
	// Module is the file of a module that is not one of ours; Envoy lets it make every host call.
	Module string
}

// wasm is the filter's place in the chain, as the control plane makes it.
func (f Filter) wasm(dist string) (object, error) {
	configuration, err := json.Marshal(f.Configuration)
	if err != nil {
		return nil, err
	}
	file := f.Module
	if file == "" {
		file = filepath.Join(dist, f.Name+".wasm")
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(translate.Wasm(f.Name, file, configuration))
	if err != nil {
		return nil, err
	}
	config := object{}
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	config["@type"] = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
	return object{"name": "marchproxy." + f.Name, "typed_config": config}, nil
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
	flush := "0.1s"
	if c.Quiet {
		flush = "5s"
	}
	var routes list
	for _, r := range c.Routes {
		routes = append(routes, object{
			"name": r.Name, "match": r.Match, "route": object{"cluster": "backend"},
			"metadata": object{"filter_metadata": object{"marchproxy": r.Metadata}},
		})
	}
	last := object{"match": object{"prefix": "/"}, "route": object{"cluster": "backend"}}
	if c.Direct {
		last = object{"match": object{"prefix": "/"}, "direct_response": object{"status": 200}}
	}
	routes = append(routes, last)
	var logs list
	if c.NativeMetrics {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(translate.NativeMetrics())
		if err != nil {
			return nil, err
		}
		logs = list{json.RawMessage(text)}
	}
	var before list
	if c.PerAddress > 0 {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(
			translate.PerAddress(filepath.Join(dist, "connections.wasm"), c.PerAddress))
		if err != nil {
			return nil, err
		}
		limit := object{}
		if err := json.Unmarshal(text, &limit); err != nil {
			return nil, err
		}
		limit["@type"] = "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm"
		before = list{object{"name": "connections", "typed_config": limit}}
	}
	return object{
		"admin":                object{"address": loopback(0)},
		"stats_flush_interval": flush,
		"stats_config": object{
			"stats_tags": boot.Tags(), "histogram_bucket_settings": boot.Buckets(),
		},
		"static_resources": object{
			"listeners": list{object{
				"name":    "main",
				"address": loopback(0),
				"filter_chains": list{object{"filters": append(before, object{
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
						"access_log":                       logs,
						"route_config": object{"virtual_hosts": list{object{
							"name": "all", "domains": list{"*"}, "routes": routes,
						}}},
					},
				})}},
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
