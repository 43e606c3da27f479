// Command bench-proxy measures what a request costs through MarchProxy (a bare route, a route with auth, license and
// metrics, one of 10,000 hosts), beside a bare Envoy, nginx, HAProxy and Caddy that send the same request to the same
// backend: on HTTP/1.1, on HTTP/2 and with TLS, requests a second and CPU time a request, and the latencies at half the
// rate that the bare Envoy can do. Each proxy has one CPU; the load and the backend have another. All run side by side
// and get load in turns, in a new order every round, so that a noisy machine is noisy for all. Ratios are of the same
// round; the interval is where the median of 90 % of resampled rounds is.
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

	"github.com/marchproxy/marchproxy/test/measure"
)

func main() {
	rounds := flag.Int("rounds", 10, "`times` that each proxy gets load, on each protocol")
	slice := flag.Duration("slice", time.Second, "how long each time")
	protocols := flag.String("protocols", "http1,http2,tls", "what is measured")
	hosts := flag.Int("hosts", 10000, "`hosts` of the MarchProxy with many")
	strict := flag.Bool("strict", false, "fail where a bar is missed")
	flag.Parse()
	missed, err := run(context.Background(), *rounds, *hosts, *slice, strings.Split(*protocols, ","))
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-proxy:", err)
		os.Exit(1)
	}
	if *strict && missed > 0 {
		os.Exit(1)
	}
}

// subject is a proxy that is measured.
type subject struct {
	name string
	pids []int
	// ports by protocol.
	ports map[string]int
	host  string
	// headers that its requests need, as lines.
	headers []string
}

func run(ctx context.Context, rounds, hosts int, slice time.Duration, protocols []string) (missed int, err error) {
	for _, p := range protocols {
		if schemes[p] == "" {
			return 0, fmt.Errorf("there is no protocol %q", p)
		}
	}
	apart := runtime.NumCPU() > 1
	if apart { // what this starts is there, too, unless it is put elsewhere
		if err := measure.Pin(os.Getpid(), 1); err != nil {
			return 0, err
		}
	} else {
		fmt.Println("This machine has one CPU: the load takes it from the proxies, and only CPU time can be compared.")
	}
	dir, err := os.MkdirTemp("", "bench-proxy")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	all, stop, err := subjects(ctx, dir, hosts)
	defer stop()
	if err != nil {
		return 0, err
	}
	for _, s := range all {
		for _, pid := range s.pids {
			if apart {
				if err := measure.Pin(pid, 0); err != nil {
					return 0, fmt.Errorf("%s: %w", s.name, err)
				}
			}
		}
	}
	for _, p := range protocols {
		full, err := turns(ctx, dir, all, p, rounds, slice, 0)
		if err != nil {
			return 0, err
		}
		rate := middle(full[0], rps) / 2
		half, err := turns(ctx, dir, all, p, rounds, slice, rate)
		if err != nil {
			return 0, err
		}
		missed += report(p, rate, all, full, half)
	}
	return missed, nil
}

// turns gives every subject its turn in each round; all that the load can do where rate is 0. The first round warms up.
func turns(
	ctx context.Context, dir string, all []*subject, protocol string, rounds int, slice time.Duration, rate float64,
) ([][]sample, error) {
	out := make([][]sample, len(all))
	for round := range rounds + 1 {
		for _, i := range rand.Perm(len(all)) {
			s, err := turn(ctx, dir, all[i], protocol, slice, rate)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", all[i].name, protocol, err)
			}
			if round > 0 {
				out[i] = append(out[i], s)
			}
		}
	}
	return out, nil
}
