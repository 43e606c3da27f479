package measure

import (
	"math/rand/v2"
	"slices"
)

// Paired gives the median over rounds of something about two samples of the same round, and its interval.
func Paired[T any](a, b []T, f func(a, b T) float64) (mid, low, high float64) {
	var values []float64
	for i := range a {
		values = append(values, f(a[i], b[i]))
	}
	var medians []float64
	again := make([]float64, len(values))
	for range 2000 {
		for i := range again {
			again[i] = values[rand.IntN(len(values))]
		}
		medians = append(medians, Median(again))
	}
	slices.Sort(medians)
	return Median(values), medians[len(medians)/20], medians[len(medians)*19/20]
}

// Median of some values.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// Column is one figure of each sample.
func Column[T any](samples []T, figure func(T) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = figure(s)
	}
	return out
}
