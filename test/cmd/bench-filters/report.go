package main

import (
	"fmt"

	"github.com/marchproxy/marchproxy/test/measure"
)

// bar is what is asked for: the requests a second of one variant, as a share of another's.
type bar struct {
	of, to string
	least  float64
}

// The bars that the floors stand before, too.
const (
	cachedBar = 0.95 // auth, to jwt_authn with its cache on
	chainBar  = 0.75 // all three filters, to none
	nativeBar = 0.80 // the same with metrics by Envoy itself
)

var bars = []bar{
	{"auth, no cache, 1 token", "jwt_authn, 1 token", 1},
	{"auth, no cache, 1000 tokens", "jwt_authn, 1000 tokens", 1},
	{"auth, 1 token", "jwt_authn, 1 token", 1},
	{"auth, 1000 tokens", "jwt_authn, 1000 tokens", 1},
	{"auth, 1 token", "jwt_authn, its cache on, 1 token", cachedBar},
	{"auth, 1000 tokens", "jwt_authn, its cache on, 1000 tokens", cachedBar},
	{"auth of the route, 1 token", "jwt_authn, its cache on, 1 token", cachedBar},
	{"auth, strips, 1 token", "jwt_authn, strips, 1 token", 1},
	{"native metrics, license, auth, 1 token", "no filter, 1 token", nativeBar},
	{"native metrics, license, auth, 1000 tokens", "no filter, 1 token", nativeBar},
	{"metrics, license, auth, 1 token", "no filter, 1 token", chainBar},
	{"metrics, license, auth, 1000 tokens", "no filter, 1 token", chainBar},
	{"metrics, license, auth of the route, 1 token", "no filter, 1 token", chainBar},
}

// figures prints what each variant needs.
func figures(list []variant, samples [][]sample) {
	fmt.Println("| configuration | requests/s | CPU µs a request | CPU µs more than without a filter (5–95 %) | " +
		"requests/s to no filter |\n|---|---|---|---|---|")
	for i, v := range list {
		more, low, high := measure.Paired(samples[i], samples[0], func(a, b sample) float64 { return a.cpu - b.cpu })
		ratio, rl, rh := measure.Paired(samples[i], samples[0], func(a, b sample) float64 { return a.rps / b.rps })
		fmt.Printf("| %s | %.0f | %.1f | %.1f [%.1f–%.1f] | %.2f [%.2f–%.2f] |\n", v.name, measure.Median(
			measure.Column(samples[i], func(s sample) float64 { return s.rps }),
		),
			measure.Median(measure.Column(samples[i], func(s sample) float64 { return s.cpu })), more, low, high, ratio, rl, rh)
	}
}

// compare prints variants beside others and gives the number of bars that the median misses.
func compare(list []variant, samples [][]sample, asked []bar) int {
	at := make(map[string]int)
	for i, v := range list {
		at[v.name] = i
	}
	fmt.Println("\n| requests/s of | to | bar | ratio (5–95 %) | CPU ratio | |\n|---|---|---|---|---|---|")
	missed := 0
	for _, b := range asked {
		x, y := samples[at[b.of]], samples[at[b.to]]
		ratio, low, high := measure.Paired(x, y, func(a, b sample) float64 { return a.rps / b.rps })
		cost, cl, ch := measure.Paired(x, y, func(a, b sample) float64 { return a.cpu / b.cpu })
		result := "met"
		if ratio < b.least {
			result = "missed"
			missed++
		}
		fmt.Printf("| %s | %s | %.2f | %.3f [%.3f–%.3f] | %.3f [%.3f–%.3f] | %s |\n", b.of, b.to, b.least, ratio, low, high,
			cost, cl, ch, result)
	}
	return missed
}
