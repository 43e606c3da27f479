// Package host runs a filter outside Envoy: a small proxy-wasm 0.2.1 host over wazero, for tests that need
// a million requests, a clock of their own, or a host that fails.
//
// A Program is compiled once. Each VM from it has its own memory and its own Host state: the headers of the
// present request, the properties, the clock, the metrics. A VM handles one request at a time, like a worker
// of Envoy. Faults make single host calls fail, answer nothing, or answer too much.
package host
