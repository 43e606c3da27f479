package live_test

import (
	"maps"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
)

// TestLatencies: what Envoys at one place have measured of a service is taken together, and what is old, or of another
// service, is left aside.
func TestLatencies(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	b := live.NewBoard(func() time.Time { return now })
	aws, gcp := locality.Place{Cloud: "aws", Zone: "a"}, locality.Place{Cloud: "gcp"}
	report := func(id string, from locality.Place, ms float64) {
		r := (&node{id: id, since: now}).report(now)
		r.EnvoyReport.Cloud, r.EnvoyReport.Zone = from.Cloud, from.Zone
		for _, to := range []locality.Place{aws, gcp} {
			for _, service := range []string{"shop", "other"} {
				r.EnvoyReport.Latencies = append(r.EnvoyReport.Latencies, status.PlaceLatency{
					Service: service, Cloud: to.Cloud, Zone: to.Zone, Milliseconds: ms, Steady: ms + 1,
				})
				ms *= 2
			}
		}
		b.ReportAgent(r, true)
	}
	report("gone", aws, 500)
	now = now.Add(time.Minute)
	for i, id := range []string{"a", "b", "c"} {
		report(id, aws, float64(i+1))
	}
	report("d", gcp, 10)
	got := b.Latencies("shop")
	if len(got) != 2 || got[0].From != aws || got[0].Proxies != 3 || got[1].From != gcp || got[1].Proxies != 1 {
		t.Fatalf("%+v", got)
	}
	if want := (locality.Latencies{aws: 2, gcp: 8}); !maps.Equal(got[0].Now, want) {
		t.Errorf("measured %v, want %v", got[0].Now, want)
	}
	if want := (locality.Latencies{aws: 3, gcp: 9}); !maps.Equal(got[0].Steady, want) {
		t.Errorf("ordered by %v, want %v", got[0].Steady, want)
	}
	if got := b.Latencies("nobody"); got != nil {
		t.Errorf("of another service: %+v", got)
	}
}
