// Command chaos kills the api, xds, NATS and PostgreSQL with SIGKILL, singly and in pairs, at moments that
// a seed decides, under a load of writes, with creates and deletes of thousands by one apply among them; between the
// kills the stream is purged, and stream and database come back from older copies. Then it checks that every
// acknowledged write is in the database and on Envoy (of those after a backup that was restored only that all parts
// agree), that no half of an unacknowledged one is, that revisions are gapless, and that Envoy served throughout.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/load"
)

// writers are five, the last of which makes and deletes thousands of routes at once.
const writers = 5

func main() {
	seed := flag.Uint64("seed", 1, "decides what is killed, when")
	kills := flag.Int("kills", 20, "kills, of one or two parts each; after every third, something rarer")
	keep := flag.Int64("keep", 0, "revisions that are kept; after the first third of the kills there is then a rest of "+
		"75 s, in which older ones go")
	many := flag.Int("many", 2000, "routes that one writer makes by one apply and deletes by the next")
	flag.Parse()
	fmt.Printf("seed %d, %d kills\n", *seed, *kills)
	if err := run(context.Background(), *seed, *kills, *many, *keep); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: seed %d: %v\n", *seed, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, seed uint64, kills, many int, keep int64) (err error) {
	s, err := harness.StartIn(ctx, []string{fmt.Sprintf("API_KEEP_REVISIONS=%d", keep)}, "--no-demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := load.Prepare(ctx, s); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, seed))
	under, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var acked, served, failed atomic.Int64
	all := load.Writers(writers)
	all[writers-1].Many, all[writers-1].Pause = many, 200*time.Millisecond
	for _, w := range all {
		wg.Go(func() { w.Run(under, s, &acked) })
	}
	wg.Go(func() { load.Steady(under, s.Proxy, &served, &failed) })
	steps := plan(rng, kills)
	if keep > 0 { // the api looks a minute after its start for what need not be kept
		steps = slices.Insert(steps, len(steps)/3, step{75 * time.Second, "rest", nil})
	}
	err = follow(ctx, steps, s, all)
	time.Sleep(2 * time.Second)
	stop()
	wg.Wait()
	if err != nil {
		return err
	}
	fmt.Printf("%d writes acknowledged, %d steady requests, %d failed\n", acked.Load(), served.Load(), failed.Load())
	if failed.Load() > 0 {
		return errors.New("envoy did not serve throughout")
	}
	return load.Check(ctx, s, all, keep)
}

// follow does what was planned, at its moments.
func follow(ctx context.Context, steps []step, s *harness.System, all []*load.Writer) error {
	for _, st := range steps {
		time.Sleep(st.after) // the moment is part of the experiment
		fmt.Println(st)
		if err := st.do(ctx, s, all); err != nil {
			return fmt.Errorf("%s: %w", st, err)
		}
	}
	return nil
}
