package locality_test

import (
	"maps"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/locality"
)

func cloud(name string) locality.Place { return locality.Place{Cloud: name} }

// TestNearness: places are as near as the nearest of them up to a bound, which is a time or a share of its latency,
// whichever allows for more; what is beyond is ordered likewise.
func TestNearness(t *testing.T) {
	for name, c := range map[string]struct {
		ms   map[string]float64
		want map[string]int
	}{
		"none":             {nil, map[string]int{}},
		"one":              {map[string]float64{"a": 90}, map[string]int{"a": 0}},
		"within the time":  {map[string]float64{"a": 1, "b": 6, "c": 6.1}, map[string]int{"a": 0, "b": 0, "c": 1}},
		"within the share": {map[string]float64{"a": 100, "b": 125, "c": 126}, map[string]int{"a": 0, "b": 0, "c": 1}},
		"the rest in its way": {
			map[string]float64{"a": 1, "b": 20, "c": 24, "d": 40},
			map[string]int{"a": 0, "b": 1, "c": 1, "d": 2},
		},
		"no chain": {map[string]float64{"a": 1, "b": 5, "c": 9}, map[string]int{"a": 0, "b": 0, "c": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l, want := locality.Latencies{}, map[locality.Place]int{}
			for p, ms := range c.ms {
				l[cloud(p)] = ms
			}
			for p, n := range c.want {
				want[cloud(p)] = n
			}
			if got := l.Nearness(5, 25); !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

// TestMedian: one Envoy of several that measures otherwise changes nothing, and a place that only some of them know is
// known.
func TestMedian(t *testing.T) {
	got := locality.Median([]locality.Latencies{
		{cloud("a"): 1, cloud("b"): 10}, {cloud("a"): 900, cloud("b"): 11}, {cloud("a"): 2, cloud("c"): 5},
	})
	want := locality.Latencies{cloud("a"): 2, cloud("b"): 10, cloud("c"): 5}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
