package locality

import (
	"cmp"
	"maps"
	"slices"
)

// Latencies are how soon places answer, in milliseconds; a place that is not there has not been measured.
type Latencies map[Place]float64

// Median is what several Envoys at one place have measured, taken together: of each place that one of them knows, the
// median; of an even number of them the lower one. It depends on nothing else, so that who hears the same says the
// same.
func Median(of []Latencies) Latencies {
	all := map[Place][]float64{}
	for _, l := range of {
		for p, ms := range l {
			all[p] = append(all[p], ms)
		}
	}
	out := Latencies{}
	for p, list := range all {
		slices.Sort(list)
		out[p] = list[(len(list)-1)/2]
	}
	return out
}

// Nearness numbers places by how near they are: 0 are the nearest one and those whose latency is above its by no more
// than the larger one of within, in milliseconds, and percent of it; 1 are the nearest of the rest with those as near
// as that, and so on.
func (l Latencies) Nearness(within, percent float64) map[Place]int {
	places := slices.SortedFunc(maps.Keys(l), func(a, b Place) int {
		return cmp.Or(cmp.Compare(l[a], l[b]), a.Compare(b))
	})
	out := make(map[Place]int, len(l))
	number, limit := -1, 0.0
	for _, p := range places {
		if number < 0 || l[p] > limit {
			number++
			limit = l[p] + max(within, l[p]*percent/100)
		}
		out[p] = number
	}
	return out
}
