// Command bench-filters measures what the filters cost in the real Envoy: requests a second and CPU time a
// request, with one worker on one CPU, the load and a fast backend on another. All configurations run side by
// side and get load in turns of a fraction of a second, in a new order every round, so that a noisy machine
// is noisy for all. Of each there are several processes, since where a process happens to have its code in memory is
// worth 5 % of its speed. Ratios are of the same round; the interval is where the median of 90 % of resampled rounds
// is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/measure"
	"github.com/marchproxy/marchproxy/test/wasm/envoy"
)

func main() {
	rounds := flag.Int("rounds", 25, "`times` that each configuration gets load")
	slice := flag.Duration("slice", 150*time.Millisecond, "how long each time, in each process")
	strict := flag.Bool("strict", false, "fail where a bar is missed")
	envoys := flag.Int("envoys", 3, "`processes` of each configuration")
	floor := flag.Bool("floor", false, "measure also filters that only make ours' host calls (needs Rust)")
	flag.Parse()
	missed, err := run(context.Background(), *rounds, *envoys, *slice, *floor)
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

func run(ctx context.Context, rounds, envoys int, slice time.Duration, floor bool) (int, error) {
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
		if err := measure.Pin(os.Getpid(), 1); err != nil {
			return 0, err
		}
		runtime.GOMAXPROCS(1)
	}
	port, err := backend(ctx)
	if err != nil {
		return 0, err
	}
	var processes [][]process
	for _, s := range all {
		var same []process
		for range envoys {
			p, err := start(ctx, s, port)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", s.name, err)
			}
			defer p.Stop()
			same = append(same, p)
		}
		processes = append(processes, same)
	}
	list := variants(all)
	samples := make([][]sample, len(list))
	for round := range rounds + 1 {
		for _, i := range rand.Perm(len(list)) {
			s, err := turn(processes[list[i].setup], list[i].requests, slice)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", list[i].name, err)
			}
			if round > 0 { // the first warms up
				samples[i] = append(samples[i], s)
			}
		}
	}
	figures(list, samples)
	missed := compare(list, samples, bars)
	if floor {
		compare(list, samples, floorBars)
	}
	return missed, memory(all, processes)
}

// process is an Envoy and the load on it.
type process struct {
	*envoy.Proxy
	load *load
}

func start(ctx context.Context, s setup, backend int) (process, error) {
	p, err := envoy.Start(ctx, envoy.Config{
		Backend: backend, Filters: s.filters, Native: s.native,
		NativeMetrics: s.counted, Quiet: true, Routes: []envoy.Route{{
			Match: object{"prefix": "/api"}, Name: translate.RouteName("shop", "things", s.policy, nil),
			Metadata: object{"route": "things", "service": "shop"},
		}},
	})
	if err != nil {
		return process{}, err
	}
	if runtime.NumCPU() > 1 {
		err = measure.Pin(p.PID, 0)
	}
	l, dialed := newLoad(ctx, strings.TrimPrefix(p.URL, "http://"))
	if err = errors.Join(err, dialed); err != nil {
		p.Stop()
	}
	return process{p, l}, err
}

// turn gives each process of a configuration its turn, and what they did on the average.
func turn(processes []process, requests [][]byte, slice time.Duration) (sample, error) {
	var out sample
	for _, p := range processes {
		before, err := measure.CPU(p.PID)
		if err != nil {
			return out, err
		}
		from := time.Now()
		n, err := p.load.run(requests, slice)
		took := time.Since(from)
		if err != nil {
			return out, err
		}
		after, err := measure.CPU(p.PID)
		if err != nil {
			return out, err
		}
		out.rps += float64(n) / took.Seconds() / float64(len(processes))
		out.cpu += float64(after-before) / float64(n) / 1000 / float64(len(processes))
	}
	return out, nil
}

// memory tells what the filters' VMs add to an Envoy with one worker.
func memory(all []setup, processes [][]process) error {
	fmt.Println("\n| configuration | memory (PSS) MB | more than without a filter |\n|---|---|---|")
	var base int64
	for i, same := range processes {
		p := same[0]
		n, err := measure.PSS(p.PID)
		if err != nil {
			return err
		}
		if i == 0 {
			base = n
		}
		fmt.Printf("| %s | %.1f | %+.1f |\n", all[i].name, float64(n)/1e6, float64(n-base)/1e6)
		if all[i].counted {
			counted, err := p.Get("/stats/prometheus?filter=requests_total")
			if err != nil {
				return err
			}
			if !strings.Contains(counted, `route="things"`) {
				return fmt.Errorf("%s: Envoy has not counted the route's requests: %q", all[i].name, counted)
			}
		}
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
