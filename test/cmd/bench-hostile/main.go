// Command bench-hostile measures what a system costs its clients while others attack it who have not shown who they
// are: at the api (8000), the xDS server (18000 and 19000) and the proxy (10000), slowly, with much, and many at a
// time. It measures a client's p99 at each door and the memory of the api, the xDS server and Envoy, and exits with 1
// where one is above its bar.
//
// The attackers are a process of their own at the lowest priority, and their rates are fixed: it is what they cost the
// servers that is measured, not the processor that they take themselves.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/marchproxy/marchproxy/test/bench"
	"github.com/marchproxy/marchproxy/test/harness"
)

type options struct {
	whole, quiet, slack time.Duration
	times               float64
	megabytes           int
	only                string
}

func main() {
	var o options
	flag.DurationVar(&o.whole, "for", 10*time.Minute, "how long is attacked")
	flag.DurationVar(&o.quiet, "quiet", 30*time.Second, "how long is measured without an attack, before and after")
	flag.DurationVar(&o.slack, "slack", 2*time.Millisecond, "how much a p99 may be above its bar, for a machine that "+
		"does other work")
	flag.Float64Var(&o.times, "times", 2, "how many times its quiet value a p99 may be")
	flag.IntVar(&o.megabytes, "memory", 512, "how much memory each process may have, in MB")
	flag.StringVar(&o.only, "only", "", "the attacks whose names contain this")
	attacker := flag.String("attacker", "", "attack these doors (JSON) until standard input ends: what the command "+
		"starts itself with")
	flag.Parse()
	var err error
	if *attacker != "" {
		err = attack(context.Background(), *attacker)
	} else {
		err = run(context.Background(), o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-hostile:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	s, err := harness.Start(ctx, "--concurrency", "2")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	doors, err := doorsOf(ctx, s)
	if err != nil {
		return err
	}
	before := watch(ctx, s, doors, o.quiet)
	stop, err := start(doors, o.only)
	if err != nil {
		return err
	}
	during := watch(ctx, s, doors, o.whole)
	attacks, err := stop()
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // what was left open is closed
	after := watch(ctx, s, doors, o.quiet)

	missed := 0
	bar := func(met bool) string {
		if met {
			return "met"
		}
		missed++
		return "MISSED"
	}
	fmt.Printf("%v of hostile load, quiet for %v before and after it\n\n", o.whole, o.quiet)
	fmt.Println("door                 quiet p50 / p99 ms   attacked p50 / p99 ms   requests   failed   bar")
	for i, d := range doors {
		quiet := before.doors[i]
		if after.doors[i].at(0.99) > quiet.at(0.99) {
			quiet = after.doors[i]
		}
		now := during.doors[i]
		most := time.Duration(o.times*float64(quiet.at(0.99))) + o.slack
		fmt.Printf("%-20s %7.2f / %7.2f   %10.2f / %7.2f   %10d %8d   p99 %.1f ms, none "+
			"fails: %s\n", d.Name, ms(quiet.at(0.5)),
			ms(quiet.at(0.99)), ms(now.at(0.5)), ms(now.at(0.99)), len(now.took), now.failed, ms(most),
			bar(now.at(0.99) <= most && now.failed == 0))
		if now.why != nil {
			fmt.Printf("  a request that failed: %v\n", now.why)
		}
	}
	fmt.Println("\nprocess   quiet MB   most MB   bar")
	for i, name := range parts {
		fmt.Printf("%-9s %8d %9d   %d MB: %s\n", name, before.memory[i], during.memory[i], o.megabytes,
			bar(during.memory[i] < o.megabytes))
	}
	fmt.Println("\nattack                                    connections   ended by the server   not even made")
	for _, a := range attacks {
		fmt.Printf("%-40s %12d %21d %15d\n", a.Name, a.Begun, a.Ended, a.Refused)
		if a.Begun == 0 {
			missed++
			fmt.Println("  MISSED: it did not take place")
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d bars are missed", missed)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (l latencies) at(q float64) time.Duration { return bench.Pct(l.took, q) }

// start has another process attack, at the lowest priority.
func start(doors []door, only string) (stop func() ([]outcome, error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(order{doors, only})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("nice", "-n", "19", self, "-attacker", string(raw))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() ([]outcome, error) {
		if err := in.Close(); err != nil {
			return nil, err
		}
		var attacks []outcome
		err := json.NewDecoder(out).Decode(&attacks)
		return attacks, errors.Join(err, cmd.Wait())
	}, nil
}
