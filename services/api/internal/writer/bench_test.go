package writer_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// route is one as most are: a host of its own and a service.
func route(i, change int) writer.Desired {
	spec := &configv1.Route{
		Hosts: []string{fmt.Sprintf("host-%d.example.com", i)}, Backends: []*configv1.Backend{{Service: "backend", Weight: new(uint32(1 + change%100))}},
	}
	return writer.Desired{Ref: resource.Ref{Kind: resource.KindRoute, Name: fmt.Sprintf("route-%d", i)}, Spec: spec, Path: "$", SpecPath: "$"}
}

// filled is an api whose database has so many routes.
func filled(b *testing.B, url string, routes int) *api {
	b.Helper()
	a := open(b, url)
	g := &configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: 80}}}
	s := &configv1.Service{Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: 80}}}
	p := writer.Plan{Upserts: []writer.Desired{
		{Ref: resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}, Spec: g, Path: "$", SpecPath: "$"},
		{Ref: resource.Ref{Kind: resource.KindService, Name: "backend"}, Spec: s, Path: "$", SpecPath: "$"},
	}}
	for i := 0; i < routes || len(p.Upserts) > 0; {
		for ; i < routes && len(p.Upserts) < 5000; i++ {
			p.Upserts = append(p.Upserts, route(i, 0))
		}
		if _, err := a.write(b.Context(), "fill", func(*config.State) (writer.Plan, error) { return p, nil }); err != nil {
			b.Fatal(err)
		}
		p = writer.Plan{}
	}
	return a
}

func (a *api) change(b *testing.B, i, change int) {
	if _, err := a.write(b.Context(), "bench", func(*config.State) (writer.Plan, error) {
		return writer.Plan{Upserts: []writer.Desired{route(i, change)}}, nil
	}); err != nil {
		b.Error(err)
	}
}

// report says how long half of the writes took at most, and how many there were a second.
func report(b *testing.B, took []time.Duration, all time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(len(took))/all.Seconds(), "writes/s")
}

// BenchmarkWriters is one api with 1,000 routes and some writers:
// go test ./api/internal/writer -run xxx -bench Writers -benchtime 3000x.
func BenchmarkWriters(b *testing.B) {
	a := filled(b, pgtest.Database(b), 1000)
	for _, writers := range []int{1, 8, 32} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			var next atomic.Int64
			took := make([]time.Duration, b.N)
			var wg sync.WaitGroup
			start := time.Now()
			for range writers {
				wg.Go(func() {
					for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
						begun := time.Now()
						a.change(b, int(i%1000), int(i/1000)+1)
						took[i] = time.Since(begun)
					}
				})
			}
			wg.Wait()
			report(b, took, time.Since(start))
		})
	}
}

// BenchmarkTurn is apis on one database that write in turn, by the number of routes in it:
// go test ./api/internal/writer -run xxx -bench Turn -benchtime 1000x.
func BenchmarkTurn(b *testing.B) {
	for _, routes := range []int{1000, 10_000, 100_000} {
		url := pgtest.Database(b)
		apis := []*api{filled(b, url, routes), open(b, url)}
		for _, n := range []int{1, 2} {
			b.Run(fmt.Sprintf("routes=%d/apis=%d", routes, n), func(b *testing.B) {
				b.ReportAllocs()
				took := make([]time.Duration, 0, b.N)
				start := time.Now()
				for i := range b.N {
					begun := time.Now()
					apis[i%n].change(b, i%routes, i/routes+int(begun.UnixNano()%97))
					took = append(took, time.Since(begun))
				}
				report(b, took, time.Since(start))
			})
		}
	}
}
