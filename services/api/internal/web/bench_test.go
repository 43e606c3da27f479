package web_test

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPut is what a write costs the api, by the number of routes there are; CPU is the process's, without
// PostgreSQL: go test ./api/internal/web -run xxx -bench Put -benchtime 1000x.
func BenchmarkPut(b *testing.B) {
	for _, routes := range []int{1000, 10_000, 100_000} {
		s := serve(b)
		s.fill(routes)
		b.Run(fmt.Sprint("routes=", routes), func(b *testing.B) {
			b.ReportAllocs()
			before := cpu()
			for i := range b.N {
				body := fmt.Sprintf(`{"spec":{"hosts":["host-%d.example.com"],"backends":[{"service":"backend","weight":%d}]}}`,
					i%routes, 1+time.Now().UnixNano()%1000)
				if code := s.call(http.MethodPut, fmt.Sprintf("/v1/routes/route-%d", i%routes), body, nil); code != http.StatusOK {
					b.Fatal(code)
				}
			}
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // does not fail for oneself
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
