package wasm

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/wasm/host"
)

// number is a whole number as the host writes one.
func number(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }

func TestMetrics(t *testing.T) {
	vm := start(t, "metrics", object{"max_series": 3})
	vm.Took = 1_500_000
	ended := func(series, method, status string) {
		t.Helper()
		vm.Properties[routeName] = series
		vm.Answer, vm.Received, vm.Sent = nil, []int{30, 5}, nil
		if status != "" {
			vm.Answer, vm.Sent = host.Headers{{":status", status}}, []int{1000, 990}
		}
		send(t, vm, host.Headers{{":method", method}, {":path", strings.Repeat("x", 100-35-12-len(method))}})
	}
	ended("shop|open", "GET", "200")
	ended("shop|open", "POST", "503")
	ended("shop|open", "BREW", "")
	ended("sh;op|\xff|x", "GET", "204")
	want := map[string]int64{
		"marchproxy_requests_in_flight": 0,
		"marchproxy_requests_total;service=shop;;route=open;;method=read;;status=2xx;":   1,
		"marchproxy_requests_total;service=shop;;route=open;;method=write;;status=5xx;":  1,
		"marchproxy_requests_total;service=shop;;route=open;;method=other;;status=none;": 1,
		"marchproxy_requests_total;service=sh_op;;route=_;;method=read;;status=2xx;":     1,
		"marchproxy_request_bytes_total;service=shop;;route=open;":                       300,
		"marchproxy_response_bytes_total;service=shop;;route=open;":                      4000,
		"marchproxy_request_bytes_total;service=sh_op;;route=_;":                         100,
		"marchproxy_response_bytes_total;service=sh_op;;route=_;":                        2000,
	}
	if !maps.Equal(vm.Metrics, want) {
		t.Errorf("got %v\nwant %v", vm.Metrics, want)
	}
	if got := vm.Recorded["marchproxy_request_duration_us;service=shop;;route=open;"]; !slices.Equal(got,
		[]uint64{1500, 1500, 1500}) {
		t.Errorf("recorded %v", got)
	}

	// Labels are bounded whatever routes there are.
	for i := range 500 {
		ended(fmt.Sprintf("s%d|r", i), "GET", "200")
	}
	names := make(map[string]bool)
	for name := range vm.Metrics {
		if _, labels, ok := strings.Cut(name, ";service="); ok {
			service, _, _ := strings.Cut(labels, ";")
			names[service] = true
		}
	}
	if len(names) != 4 || !names["other"] ||
		vm.Metrics["marchproxy_requests_total;service=other;;route=other;;method=read;;status=2xx;"] != 499 {
		t.Errorf("services: %v", names)
	}

	// A route without a name, and a host that knows nothing.
	clear(vm.Properties)
	send(t, vm, request("/"))
	if vm.Metrics["marchproxy_requests_in_flight"] != 0 {
		t.Error("a request is in flight for ever")
	}
}

// TestMetricsAreTold: the host gets what has come together when it is time, and when the last request has ended:
// there is nothing to lose when a VM ends.
func TestMetricsAreTold(t *testing.T) {
	vm := start(t, "metrics", object{})
	vm.Properties[routeName], vm.Answer = "shop|open||", host.Headers{{":status", "200"}}
	const name = "marchproxy_requests_total;service=shop;;route=open;;method=read;;status=2xx;"
	want := func(when string, requests, flying int64) {
		t.Helper()
		if vm.Metrics[name] != requests || vm.Metrics["marchproxy_requests_in_flight"] != flying {
			t.Errorf("%s: %v, want %d requests and %d in flight", when, vm.Metrics, requests, flying)
		}
	}
	var open []uint32
	for range 100 {
		id, err := vm.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, id)
	}
	for range 10 {
		send(t, vm, request("/"))
	}
	want("before it is time", 0, 0)
	if err := vm.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("when it is time", 10, 100)
	for i, id := range open {
		if i == len(open)-1 {
			want("before the last one ends", 10, 100)
		}
		if err := vm.End(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if sum := vm.Metrics[name] +
		vm.Metrics["marchproxy_requests_total;service=shop;;route=open;;method=other;;status=2xx;"]; sum != 110 {
		t.Errorf("%d requests after the last one has ended, want 110: %v", sum, vm.Metrics)
	}
	want("after the last one has ended", vm.Metrics[name], 0)
}
