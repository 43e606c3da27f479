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
		Hosts:    []string{fmt.Sprintf("host-%d.example.com", i)},
		Backends: []*configv1.Backend{{Service: "backend", Weight: new(uint32(1 + change%100))}},
	}
	return writer.Desired{
		Ref: resource.Ref{Kind: resource.KindRoute, Name: fmt.Sprintf("route-%d", i)}, Spec: spec,
		Path: "$", SpecPath: "$",
	}
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

// BenchmarkLarge is an apply that makes 10,000 routes beside others, and one that deletes them, while somebody writes
// one route after another: how long the large ones take, and how long the small ones wait for them at most. go test
// ./api/internal/writer -run xxx -bench Large -benchtime 5x.
func BenchmarkLarge(b *testing.B) {
	const there, many = 20_000, 10_000
	a := filled(b, pgtest.Database(b), there)
	var makes, deletes writer.Plan
	for i := range many {
		d := route(there+i, 0)
		if err := d.Make(); err != nil {
			b.Fatal(err)
		}
		makes.Upserts, deletes.Deletes = append(makes.Upserts, d), append(deletes.Deletes, d.Ref)
	}
	var took, waited [2][]time.Duration
	for b.Loop() {
		for k, p := range []writer.Plan{makes, deletes} {
			stop, stopped := make(chan struct{}), make(chan time.Duration)
			go func() {
				longest := time.Duration(0)
				for i := 0; ; i++ {
					select {
					case <-stop:
						stopped <- longest
						return
					default:
						begun := time.Now()
						a.change(b, i%there, int(begun.UnixNano()%97))
						longest = max(longest, time.Since(begun))
					}
				}
			}()
			begun := time.Now()
			_, err := a.write(b.Context(), "large", func(*config.State) (writer.Plan, error) { return p, nil })
			took[k] = append(took[k], time.Since(begun))
			close(stop)
			if waited[k] = append(waited[k], <-stopped); err != nil {
				b.Fatal(err)
			}
		}
	}
	for k, what := range []string{"make", "delete"} {
		for _, of := range []struct {
			name string
			all  []time.Duration
		}{{"", took[k]}, {"-wait", waited[k]}} {
			slices.Sort(of.all)
			b.ReportMetric(float64(of.all[0].Milliseconds()), what+of.name+"-least-ms")
			b.ReportMetric(float64(of.all[len(of.all)/2].Milliseconds()), what+of.name+"-p50-ms")
		}
	}
}
