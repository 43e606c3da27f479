// Command diff-auth holds the auth filter against others that check tokens: golang-jwt, go-jose and Envoy's own
// jwt_authn, all told the same policy. Tokens and headers come from package forge. Each disagreement must be
// one that the table in explained.go has, on the ground that the table gives; one that it has not is a failure,
// and so is a request that the filter lets pass and all the others refuse.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/test/wasm/forge"
	"github.com/marchproxy/marchproxy/test/wasm/host"
)

func main() {
	n := flag.Uint64("n", 1_000_000, "`cases` for the libraries")
	native := flag.Uint64("envoy", 200_000, "`cases` of their own for Envoy, with jwt_authn and with the filter")
	seed := flag.Uint64("seed", 1, "where the cases come from")
	only := flag.Int64("case", -1, "show this case and what each says of it")
	asEnvoy := flag.Bool("as-envoy", false, "with -case: as Envoy had it, whose cases have other dates")
	flag.Parse()
	ctx := context.Background()
	var err error
	if *only >= 0 {
		err = show(ctx, *seed, uint64(*only), *asEnvoy)
	} else {
		err = run(ctx, *seed, *n, *native)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// started is the filters' clock for the libraries' cases: any moment will do.
const started = 1_800_000_000

func run(ctx context.Context, seed, n, native uint64) error {
	t := newTally()
	from := time.Now()
	if err := libraries(ctx, seed, n, t); err != nil {
		return err
	}
	fmt.Printf("%d cases, seed %d, against golang-jwt and go-jose: %.0f s\n", n, seed, time.Since(from).Seconds())
	if native > 0 {
		from = time.Now()
		if err := envoys(ctx, seed, native, t); err != nil {
			return err
		}
		fmt.Printf("%d cases, seed %d, through Envoy, with jwt_authn and with the filter: %.0f s\n", native, seed,
			time.Since(from).Seconds())
	}
	return t.report()
}

// start makes a VM with the policy.
func start(ctx context.Context, p *host.Program, now time.Time) (*host.VM, error) {
	vm, err := p.Start(ctx)
	if err != nil {
		return nil, err
	}
	vm.Now = now.UnixNano()
	b, err := json.Marshal(configuration())
	if err != nil {
		return nil, err
	}
	if took, err := vm.Configure(ctx, b); err != nil || !took {
		return nil, errors.Join(fmt.Errorf("configure the filter: %v", vm.Logs), err)
	}
	return vm, nil
}

// libraries asks the filter and both libraries about each case.
func libraries(ctx context.Context, seed, n uint64, t *tally) error {
	program, err := compileFilter(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = program.Close(ctx) }()
	now := time.Unix(started, 0)
	workers := uint64(runtime.NumCPU())
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			errs[w] = func() error {
				vm, err := start(ctx, program, now)
				if err != nil {
					return err
				}
				f := forge.New(started, 0)
				for i := w; i < n; i += workers {
					c := f.Case(seed, i)
					reason, err := filter(ctx, vm, c)
					if err != nil {
						return fmt.Errorf("case %d: %w", i, err)
					}
					t.add(i, started, c, reason, []opinion{{"golang-jwt", golangJWT(c, now)}, {"go-jose", goJose(c, now)}})
				}
				return nil
			}()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// show tells what each says of one case: as the libraries had it, or as Envoy had it, with the dates of today.
func show(ctx context.Context, seed, i uint64, asEnvoy bool) error {
	now, keep := time.Unix(started, 0), int64(0)
	if asEnvoy {
		now, keep = time.Now(), slack
	}
	c := forge.New(now.Unix(), keep).Case(seed, i)
	fmt.Printf("target %q\nheaders %q\ntoken %s\n", c.Target, c.Headers, plain(c.Token))
	if asEnvoy {
		j, err := newJury(ctx)
		if err != nil {
			return err
		}
		defer j.stop(ctx)
		a, err := j.asker(ctx)
		if err != nil {
			return err
		}
		a.vm.Now = now.UnixNano()
		v, err := a.ask(ctx, c, now)
		fmt.Printf("filter: %q %v\n", v.reason, err)
		for _, o := range v.others {
			fmt.Printf("%s: %v\n", o.who, o.err)
		}
		c = v.seen
	} else {
		program, err := compileFilter(ctx)
		if err != nil {
			return err
		}
		vm, err := start(ctx, program, now)
		if err != nil {
			return err
		}
		reason, err := filter(ctx, vm, c)
		fmt.Printf("filter: %q %v\ngolang-jwt: %v\ngo-jose: %v\n", reason, err, golangJWT(c, now), goJose(c, now))
	}
	for odd, is := range oddities(c, now.Unix()) {
		if is {
			fmt.Println("oddity:", odd)
		}
	}
	return nil
}

// plain is the token with its parts decoded, as far as they can be.
func plain(token string) string {
	var out []string
	for part := range strings.SplitSeq(token, ".") {
		b, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			b = []byte(part)
		}
		out = append(out, fmt.Sprintf("%q", b))
	}
	return strings.Join(out, " . ")
}
