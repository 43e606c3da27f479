// Command bench-filters measures what the filters cost in the real Envoy: requests a second and CPU time a
// request, with one worker on one CPU, the load and a fast backend on another. All configurations run side by
// side and get load in turns of a fraction of a second, in a new order every round, so that a noisy machine
// is noisy for all. Ratios are of the same round; the interval is where the median of 90 % of resampled rounds is.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/wasm/envoy"
)

func main() {
	rounds := flag.Int("rounds", 25, "`times` that each configuration gets load")
	slice := flag.Duration("slice", 400*time.Millisecond, "how long each time")
	strict := flag.Bool("strict", false, "fail where a bar is missed")
	floor := flag.Bool("floor", false, "measure also filters that only make ours' host calls (needs Rust)")
	flag.Parse()
	missed, err := run(context.Background(), *rounds, *slice, *floor)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if *strict && missed > 0 {
		os.Exit(1)
	}
}

// sample is one turn of a variant.
type sample struct {
	rps, cpu float64 // requests a second, microseconds a request
}

func run(ctx context.Context, rounds int, slice time.Duration, floor bool) (int, error) {
	all := setups()
	if floor {
		dir, err := os.MkdirTemp("", "bench-filters")
		if err != nil {
			return 0, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		more, err := floors(ctx, dir)
		if err != nil {
			return 0, err
		}
		all = append(all, more...)
	}
	if runtime.NumCPU() > 1 {
		if err := pin(os.Getpid(), 1); err != nil {
			return 0, err
		}
		runtime.GOMAXPROCS(1)
	}
	port, err := backend(ctx)
	if err != nil {
		return 0, err
	}
	var proxies []*envoy.Proxy
	var loads []*load
	defer func() {
		for _, p := range proxies {
			p.Stop()
		}
	}()
	for _, s := range all {
		p, err := envoy.Start(ctx, envoy.Config{Backend: port, Filters: s.filters, Native: s.native, Quiet: true, Routes: []envoy.Route{{
			Match: object{"prefix": "/api"}, Name: translate.RouteName("shop", "things", "p", nil),
		}}})
		if err != nil {
			return 0, fmt.Errorf("%s: %w", s.name, err)
		}
		proxies = append(proxies, p)
		if runtime.NumCPU() > 1 {
			if err := pin(p.PID, 0); err != nil {
				return 0, err
			}
		}
		l, err := newLoad(ctx, strings.TrimPrefix(p.URL, "http://"))
		if err != nil {
			return 0, err
		}
		loads = append(loads, l)
	}
	list := variants(all)
	samples := make([][]sample, len(list))
	for round := range rounds + 1 {
		for _, i := range rand.Perm(len(list)) {
			v := list[i]
			before, err := cpu(proxies[v.setup].PID)
			if err != nil {
				return 0, err
			}
			from := time.Now()
			n, err := loads[v.setup].run(v.requests, slice)
			took := time.Since(from)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", v.name, err)
			}
			after, err := cpu(proxies[v.setup].PID)
			if err != nil {
				return 0, err
			}
			if round > 0 { // the first warms up
				samples[i] = append(samples[i], sample{float64(n) / took.Seconds(), float64(after-before) / float64(n) / 1000})
			}
		}
	}
	figures(list, samples)
	missed := compare(list, samples, bars)
	if floor {
		compare(list, samples, floorBars)
	}
	return missed, memory(all, proxies)
}

// memory tells what the filters' VMs add to an Envoy with one worker.
func memory(all []setup, proxies []*envoy.Proxy) error {
	fmt.Println("\n| configuration | memory (PSS) MB | more than without a filter |\n|---|---|---|")
	var base int64
	for i, p := range proxies {
		n, err := pss(p.PID)
		if err != nil {
			return err
		}
		if i == 0 {
			base = n
		}
		fmt.Printf("| %s | %.1f | %+.1f |\n", all[i].name, float64(n)/1e6, float64(n-base)/1e6)
		if len(all[i].filters) == 0 {
			continue
		}
		failures, err := p.Failures()
		if err != nil {
			return err
		}
		if failures != nil {
			return fmt.Errorf("%s: failures of wasm: %q", all[i].name, failures)
		}
	}
	return nil
}
