package wasm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/wasm/host"
)

var filters = []string{"auth", "license", "metrics"}

// busy makes a VM of a filter, configured so that a request uses every host call that it has.
func busy(t testing.TB, name string) *host.VM {
	t.Helper()
	vm := start(t, name, map[string]object{"auth": authUsers(), "license": gated(nil), "metrics": {}}[name])
	maps.Copy(vm.Properties, map[string]string{
		routeName: "shop|open|users|f", "response\x00code": number(200),
	})
	vm.Answer, vm.Sent = host.Headers{{":status", "200"}, {"content-type", "text/plain"}}, []int{1000, 1000}
	return vm
}

// enforces says that a filter must never let a request pass that it could not judge.
func enforces(name string) bool { return name != "metrics" }

// TestEveryHostCallFails lets each host call of each kind of request fail in every way, alone and together,
// the first time and always. The filter must not trap, and auth and license must refuse whatever they cannot
// judge; what they let pass must be what goes without credentials or features.
func TestEveryHostCallFails(t *testing.T) {
	for _, name := range filters {
		t.Run(name, func(t *testing.T) {
			calls := program(t, name).Imports()
			good := request("/multi-cloud", "authorization", "Bearer "+token(t, "k1", claims(now, nil)), "x-auth-sub", "forged",
				"x-license-key", "k")
			bad := request("/multi-cloud", "authorization", "Bearer "+token(t, "k1", claims(now, object{"exp": 1})),
				"x-auth-sub", "forged", "x-license-key", "k")
			for _, call := range calls {
				for _, fault := range host.AllFaults {
					vm := busy(t, name)
					for _, when := range []int{0, 1, 2, 3} {
						for what, h := range map[string]host.Headers{"good": good, "bad": bad, "none": request("/")} {
							vm.Faults = func(c string, n int) host.Fault {
								if c == call && (when == 0 || n == when) {
									return fault
								}
								return host.NoFault
							}
							label := fmt.Sprintf("%s: %s fault %d at call %d, %s request", name, call, fault, when, what)
							o, err := vm.Request(t.Context(), h)
							if err != nil {
								t.Fatalf("%s: %v", label, err)
							}
							if enforces(name) && o.Passed {
								judge(t, label, name, what, o)
							}
							// The next request finds a filter that works.
							vm.Faults = nil
							o, err = vm.Request(t.Context(), good)
							if err != nil || !o.Passed {
								t.Fatalf("%s: the request after it: %v %v", label, err, refusedFor(o))
							}
						}
					}
				}
			}
		})
	}
}

// judge complains of a request that passed though it should not have, and of one whose forged headers did.
func judge(t *testing.T, label, name, what string, o host.Outcome) {
	t.Helper()
	if name == "auth" && what != "good" {
		t.Errorf("%s passed", label)
	}
	for _, kv := range o.Headers {
		if strings.HasPrefix(kv[0], "x-license-") && name == "license" || kv == [2]string{"x-auth-sub", "forged"} &&
			name == "auth" {
			t.Errorf("%s passed with %s", label, kv[0])
		}
	}
}

// TestConfigureFails lets each host call fail while a filter is configured: it may refuse, never trap.
func TestConfigureFails(t *testing.T) {
	for _, name := range filters {
		for _, call := range program(t, name).Imports() {
			for _, fault := range host.AllFaults {
				vm := busy(t, name)
				vm.Faults = func(c string, _ int) host.Fault {
					if c == call {
						return fault
					}
					return host.NoFault
				}
				if _, err := vm.Configure(t.Context(), []byte(`{}`)); err != nil {
					t.Errorf("%s with %s: %v", name, call, err)
				}
			}
		}
	}
}

// TestNoConfiguration: a request under a configuration that is not there is refused.
func TestNoConfiguration(t *testing.T) {
	for _, name := range filters {
		vm, err := program(t, name).Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o := send(t, vm, request("/"))
		if o.Passed != !enforces(name) || !o.Passed && o.Response.Status != 503 {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// TestBounds: the modules' size, what they import, and how many host calls a request costs.
func TestBounds(t *testing.T) {
	const most = 100_000
	for name, want := range map[string][]string{
		"auth": {
			"proxy_define_metric", "proxy_get_buffer_bytes", "proxy_get_current_time_nanoseconds", "proxy_get_header_map_pairs",
			"proxy_get_property", "proxy_increment_metric", "proxy_log", "proxy_send_local_response",
			"proxy_set_header_map_pairs",
		},
		"license": {
			"proxy_define_metric", "proxy_get_buffer_bytes", "proxy_get_current_time_nanoseconds", "proxy_get_header_map_pairs",
			"proxy_get_property", "proxy_increment_metric", "proxy_log", "proxy_send_local_response",
			"proxy_set_header_map_pairs",
		},
		"metrics": {
			"clock_time_get", "proxy_define_metric", "proxy_get_buffer_bytes", "proxy_get_header_map_pairs",
			"proxy_get_property",
			"proxy_increment_metric", "proxy_log", "proxy_record_metric", "proxy_set_tick_period_milliseconds",
		},
	} {
		size := len(module(t, name))
		t.Logf("%s: %d bytes, %d bytes of memory when configured", name, size, busy(t, name).Memory())
		if size >= most {
			t.Errorf("%s has %d bytes, want fewer than %d", name, size, most)
		}
		got := slices.Sorted(slices.Values(program(t, name).Imports()))
		if !slices.Equal(got, want) {
			t.Errorf("%s imports %q, want %q", name, got, want)
		}
		// Each callback that is exported costs every request something. Those of the bodies are called where there are any.
		known := []string{
			"proxy_on_context_create", "proxy_on_configure", "proxy_on_request_headers",
			"proxy_on_memory_allocate",
		}
		if name == "metrics" {
			known = []string{
				"proxy_on_context_create", "proxy_on_configure", "proxy_on_request_body", "proxy_on_response_body",
				"proxy_on_log", "proxy_on_tick", "proxy_on_memory_allocate",
			}
		}
		for _, export := range program(t, name).Exports() {
			if strings.HasPrefix(export, "proxy_on_") && !slices.Contains(known, export) {
				t.Errorf("%s exports %s", name, export)
			}
		}
	}
}

func TestHostCallsPerRequest(t *testing.T) {
	tok := "Bearer " + token(t, "k1", claims(now, nil))
	plain := object{
		"default_policy": "p",
		"policies":       []object{{"name": "p", "jwt": object{"keys": []jwk{{"k1", "HS256", b64(secret256)}}}}},
	}
	for _, c := range []struct {
		what, filter  string
		configuration object
		headers       host.Headers
		most          int
	}{
		{"one policy, no claims forwarded", "auth", plain, request("/", "authorization", tok), 3},
		{"one policy, refused", "auth", plain, request("/"), 3},
		{"policies by route, claims forwarded", "auth", authUsers(), request("/", "authorization", tok), 6},
		{"the same with forged headers", "auth", authUsers(), request("/", "authorization", tok, "x-auth-sub", "root"), 8},
		{"a path without gates", "license", gated(object{"per_route": false}), request("/"), 2},
		{"a licensed feature", "license", gated(nil), request("/multi-cloud"), 4},
		{"a surplus proxy", "license", gated(object{"surplus": true}), request("/"), 2},
		{"a request", "metrics", object{}, request("/"), 6},
	} {
		vm := start(t, c.filter, c.configuration)
		like := busy(t, c.filter)
		vm.Properties, vm.Answer, vm.Sent = like.Properties, like.Answer, like.Sent
		// With another one in flight, as where it matters: whoever is alone is told to the host at once.
		if _, err := vm.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, turn := range []string{"the first", "a later"} {
			o := send(t, vm, c.headers)
			sum := 0
			for call, n := range o.Calls {
				if call != "proxy_define_metric" {
					sum += n
				}
			}
			t.Logf("%s, %s (%s): %d host calls", c.filter, c.what, turn, sum)
			if sum > c.most {
				t.Errorf("%s, %s (%s): %d host calls, want at most %d: %v", c.filter, c.what, turn, sum, c.most, o.Calls)
			}
		}
	}
}
