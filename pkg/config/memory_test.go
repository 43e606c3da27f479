package config_test

import (
	"fmt"
	"runtime"
	"testing"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// payloads are routes as they are stored, each with a host of its own.
func payloads(tb testing.TB, n int, spec func(i int) proto.Message) [][]byte {
	tb.Helper()
	out := make([][]byte, n)
	for i := range out {
		o, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: fmt.Sprintf("route-%d", i)}, spec(i))
		if err != nil {
			tb.Fatal(err)
		}
		o.UID, o.Revision, o.CreatedAt, o.UpdatedAt = fmt.Sprintf("00000000-0000-4000-8000-%012d", i), int64(i),
			"2026-11-26T10:00:00.000000Z", "2026-11-26T10:00:00.000000Z"
		out[i] = o.Payload()
	}
	return out
}

func direct(i int) proto.Message {
	return &configv1.Route{
		Hosts:          []string{fmt.Sprintf("host-%d.example.com", i)},
		DirectResponse: &configv1.DirectResponse{Status: 200, Body: fmt.Sprintf("body %d", i)},
	}
}

func backend(i int) proto.Message {
	return &configv1.Route{
		Hosts:    []string{fmt.Sprintf("host-%d.example.com", i)},
		Backends: []*configv1.Backend{{Service: fmt.Sprintf("service-%d", i)}},
	}
}

// BenchmarkMemory is what an object costs in the memory of a program that holds the configuration:
// go test ./config -run xxx -bench Memory -benchtime 1x.
func BenchmarkMemory(b *testing.B) {
	for name, spec := range map[string]func(int) proto.Message{"direct": direct, "backend": backend} {
		b.Run(name, func(b *testing.B) {
			const n = 50_000
			var total uint64
			for range b.N {
				stored := payloads(b, n, spec)
				before := heap()
				st := config.New()
				for i := range stored {
					o, err := resource.ParsePayload(stored[i])
					if err != nil {
						b.Fatal(err)
					}
					st.Apply([]*resource.Object{o})
				}
				total += heap() - before
				for i := range stored { // they belong to the objects
					total += uint64(cap(stored[i])) / uint64(b.N)
				}
				runtime.KeepAlive(st)
			}
			b.ReportMetric(float64(total)/float64(b.N)/n, "bytes/object")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
