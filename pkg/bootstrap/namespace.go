package bootstrap

import (
	"encoding/base64"
	"strings"
)

// Namespace is the prefix of figures that Envoy takes off again in /stats/prometheus, where it would otherwise add its
// own, envoy_. It does so since the first WASM module has come, and for this prefix alone. So that what Envoy counts
// itself has the names that our filters' figures have, also where there is no filter, the bootstrap has a module that
// does nothing, in a VM of its own of which no request knows.
const Namespace = "wasmcustom"

// nothing is that module: a function that says by its name which version of the interface it would speak, one for
// memory that is never called, and a page of memory.
var nothing = strings.Join([]string{
	"\x00asm\x01\x00\x00\x00",
	"\x01\x09\x02" + "\x60\x00\x00" + "\x60\x01\x7f\x01\x7f", // types: () -> (), (i32) -> i32
	"\x03\x03\x02\x00\x01",                                   // functions of these types
	"\x05\x03\x01\x00\x01",                                   // memory
	"\x07\x3f\x03" + "\x06memory\x02\x00" + "\x17proxy_abi_version_0_2_1\x00\x00" + "\x18proxy_on_memory_allocate\x00\x01",
	"\x0a\x09\x02" + "\x02\x00\x0b" + "\x04\x00\x41\x00\x0b", // code: nothing, 0
}, "")

// namespace has Envoy know [Namespace].
func namespace() object {
	return object{"name": "envoy.bootstrap.wasm", "typed_config": object{
		"@type": "type.googleapis.com/envoy.extensions.wasm.v3.WasmService", "singleton": true,
		"config": object{"name": "marchproxy.namespace", "vm_config": object{
			"vm_id": "marchproxy.namespace", "runtime": "envoy.wasm.runtime.v8",
			"code": object{"local": object{"inline_bytes": base64.StdEncoding.EncodeToString([]byte(nothing))}},
		}},
	}}
}
