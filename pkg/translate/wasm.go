package translate

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpwasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// capabilities are the host calls and callbacks of each filter: what Envoy lets it do, and nothing else.
var capabilities = map[string][]string{
	"metrics": {
		"proxy_on_context_create", "proxy_on_configure", "proxy_on_request_body", "proxy_on_response_body", "proxy_on_log",
		"proxy_on_tick", "proxy_on_memory_allocate", "proxy_log", "proxy_get_buffer_bytes", "proxy_get_header_map_pairs",
		"proxy_get_property", "proxy_define_metric", "proxy_increment_metric", "proxy_record_metric",
		"proxy_set_tick_period_milliseconds", "clock_time_get",
	},
	"connections": {
		"proxy_on_configure", "proxy_on_new_connection", "proxy_on_downstream_connection_close", "proxy_on_memory_allocate",
		"proxy_log", "proxy_get_buffer_bytes", "proxy_get_property", "proxy_define_metric", "proxy_increment_metric",
		"proxy_get_shared_data", "proxy_set_shared_data", "proxy_close_stream", "clock_time_get",
	},
	"license": decides,
	"auth":    decides,
}

// decides is what a filter needs that lets requests through or not.
var decides = []string{
	"proxy_on_context_create", "proxy_on_configure", "proxy_on_request_headers", "proxy_on_memory_allocate", "proxy_log",
	"proxy_get_buffer_bytes", "proxy_get_property", "proxy_define_metric", "proxy_increment_metric",
	"proxy_get_header_map_pairs", "proxy_set_header_map_pairs", "proxy_get_current_time_nanoseconds",
	"proxy_send_local_response",
}

// Wasm is the configuration of one of our filters of requests (metrics, license, auth) as Envoy has it: the module's
// file and the filter's own configuration in JSON. The VM is the same for every configuration, so that a
// change costs no new one; each filter has one of its own.
func Wasm(name, file string, configuration []byte) *httpwasmv3.Wasm {
	return &httpwasmv3.Wasm{Config: plugin(name, file, configuration)}
}

func plugin(name, file string, configuration []byte) *wasmv3.PluginConfig {
	allowed := map[string]*wasmv3.SanitizationConfig{}
	for _, c := range capabilities[name] {
		allowed[c] = &wasmv3.SanitizationConfig{}
	}
	policy := wasmv3.FailurePolicy_FAIL_RELOAD // and closed, until it runs again
	if name == "metrics" || name == "connections" {
		policy = wasmv3.FailurePolicy_FAIL_OPEN
	}
	id := "marchproxy." + name
	return &wasmv3.PluginConfig{
		Name: id, RootId: id, FailurePolicy: policy, Configuration: pack(wrapperspb.String(string(configuration))),
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			VmId: id, Runtime: "envoy.wasm.runtime.v8", CapabilityRestrictionConfig: &wasmv3.CapabilityRestrictionConfig{
				AllowedCapabilities: allowed,
			},
			Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{
				Local: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: file}},
			}},
		}},
	}
}
