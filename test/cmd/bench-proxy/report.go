package main

import (
	"fmt"

	"github.com/marchproxy/marchproxy/test/measure"
)

// Names of the subjects that bars are about.
const (
	bareEnvoy = "bare Envoy"
	bareRoute = "MarchProxy, bare route"
	fullRoute = "MarchProxy, auth, license, metrics"
	manyHosts = "MarchProxy, bare route of many hosts"
)

// bar holds one subject's figure against another's: at least where it is requests a second, at most else.
type bar struct {
	of, to, what string
	limit        float64
}

var bars = []bar{
	{bareRoute, bareEnvoy, "requests/s", 0.92},
	{fullRoute, bareEnvoy, "requests/s", 0.80},
	{manyHosts, bareRoute, "CPU", 1.1},
	{bareRoute, bareEnvoy, "p99 at half load", 1.2},
}

func rps(s sample) float64 { return s.rps }
func cpu(s sample) float64 { return s.cpu }
func p99(s sample) float64 { return s.p99 }

// report prints what each needs, ratios to the bare Envoy and the bars, and gives the number of those missed.
func report(protocol string, rate float64, all []*subject, full, half [][]sample) int {
	fmt.Printf("\n%s, %d connections, %d requests at a time on each; latencies at %.0f requests/s\n\n", protocol,
		connections[protocol], streams[protocol], rate)
	fmt.Println("| | requests/s | CPU µs a request | CPU busy | p50 ms | p99 ms | requests/s to bare Envoy | CPU | p99 |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	at := map[string]int{}
	for i, s := range all {
		at[s.name] = i
		fmt.Printf("| %s | %.0f | %.1f | %.0f %% | %.2f | %.2f |", s.name, middle(full[i], rps), middle(full[i], cpu),
			100*middle(full[i], func(s sample) float64 { return s.busy }),
			middle(half[i], func(s sample) float64 { return s.p50 }), middle(half[i], p99))
		fmt.Printf(" %s | %s | %s |\n", ratio(full[i], full[0], rps), ratio(full[i], full[0], cpu),
			ratio(half[i], half[0], p99))
	}
	fmt.Println("\n| of | to | what | bar | ratio (5–95 %) | |\n|---|---|---|---|---|---|")
	missed := 0
	for _, b := range bars {
		figure, samples := map[string]func(sample) float64{
			"requests/s": rps, "CPU": cpu,
			"p99 at half load": p99,
		}[b.what], full
		if b.what == "p99 at half load" {
			samples = half
		}
		mid, low, high := measure.Paired(samples[at[b.of]], samples[at[b.to]],
			func(a, b sample) float64 { return figure(a) / figure(b) })
		result, sign := "met", "≤"
		least := b.what == "requests/s"
		if least {
			sign = "≥"
		}
		if least == (mid < b.limit) && mid != b.limit {
			result = "missed"
			missed++
		}
		fmt.Printf("| %s | %s | %s | %s %.2f | %.3f [%.3f–%.3f] | %s |\n", b.of, b.to, b.what, sign, b.limit, mid,
			low, high, result)
	}
	return missed
}

func ratio(a, b []sample, figure func(sample) float64) string {
	mid, low, high := measure.Paired(a, b, func(a, b sample) float64 { return figure(a) / figure(b) })
	return fmt.Sprintf("%.2f [%.2f–%.2f]", mid, low, high)
}

func middle(samples []sample, figure func(sample) float64) float64 {
	return measure.Median(measure.Column(samples, figure))
}
