package wasm

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

const routeMetrics = "xds\x00route_metadata\x00filter_metadata\x00marchproxy\x00metrics"

// number is a whole number as the host writes one.
func number(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }

func TestMetrics(t *testing.T) {
	vm := start(t, "metrics", object{"max_series": 3})
	ended := func(series, method string, code uint64) {
		t.Helper()
		maps.Copy(vm.Properties, map[string]string{
			routeMetrics: series, "request\x00method": method, "response\x00code": number(code),
			"request\x00duration": number(1_500_000), "request\x00total_size": number(100), "response\x00total_size": number(2000),
		})
		send(t, vm, request("/"))
	}
	ended("shop|open", "GET", 200)
	ended("shop|open", "POST", 503)
	ended("shop|open", "BREW", 0)
	ended("sh;op|\xff|x", "GET", 204)
	want := map[string]int64{
		"marchproxy_requests_in_flight": 0,
		"marchproxy_requests_total;service=shop;;route=open;;method=read;;status=2xx;":   1,
		"marchproxy_requests_total;service=shop;;route=open;;method=write;;status=5xx;":  1,
		"marchproxy_requests_total;service=shop;;route=open;;method=other;;status=none;": 1,
		"marchproxy_requests_total;service=sh_op;;route=__x;;method=read;;status=2xx;":   1,
		"marchproxy_request_bytes_total;service=shop;;route=open;":                       300,
		"marchproxy_response_bytes_total;service=shop;;route=open;":                      6000,
		"marchproxy_request_bytes_total;service=sh_op;;route=__x;":                       100,
		"marchproxy_response_bytes_total;service=sh_op;;route=__x;":                      2000,
	}
	if !maps.Equal(vm.Metrics, want) {
		t.Errorf("got %v\nwant %v", vm.Metrics, want)
	}
	if got := vm.Recorded["marchproxy_request_duration_us;service=shop;;route=open;"]; !slices.Equal(got, []uint64{1500, 1500, 1500}) {
		t.Errorf("recorded %v", got)
	}

	// Labels are bounded whatever routes there are.
	for i := range 500 {
		ended(fmt.Sprintf("s%d|r", i), "GET", 200)
	}
	names := make(map[string]bool)
	for name := range vm.Metrics {
		if _, labels, ok := strings.Cut(name, ";service="); ok {
			service, _, _ := strings.Cut(labels, ";")
			names[service] = true
		}
	}
	if len(names) != 4 || !names["other"] || vm.Metrics["marchproxy_requests_total;service=other;;route=other;;method=read;;status=2xx;"] != 499 {
		t.Errorf("services: %v", names)
	}

	// A route without a name, and a host that knows nothing.
	clear(vm.Properties)
	send(t, vm, request("/"))
	if vm.Metrics["marchproxy_requests_in_flight"] != 0 {
		t.Error("a request is in flight for ever")
	}
}
