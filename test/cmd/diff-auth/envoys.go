package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/test/wasm/envoy"
	"github.com/marchproxy/marchproxy/test/wasm/forge"
	"github.com/marchproxy/marchproxy/test/wasm/host"
)

// chunk is how many cases share one moment. No date in them is nearer to a change of the verdict than 20 seconds,
// so that a chunk may take that long.
const (
	chunk = 250
	slack = 20
)

// workers is the number of connections to each Envoy.
const workers = 8

var errRefused = errors.New("refused")

// envoys asks two Envoys about each case, one with jwt_authn and one with the filter, and everyone else too.
func envoys(ctx context.Context, seed, n uint64, t *tally) error {
	var keys []map[string]any
	for _, k := range forge.Keys {
		keys = append(keys, object{"kty": "oct", "kid": k.Kid, "alg": k.Alg, "k": k.Base64()})
	}
	native, err := envoy.Start(ctx, envoy.Config{Direct: true, Native: []any{envoy.JWTAuthn(object{
		"issuer": forge.Issuer, "audiences": []string{forge.Audience}, "clock_skew_seconds": forge.Leeway, "require_expiration": true,
	}, keys)}})
	if err != nil {
		return err
	}
	defer native.Stop()
	ours, err := envoy.Start(ctx, envoy.Config{Direct: true, Filters: []envoy.Filter{{Name: "auth", Configuration: configuration()}}})
	if err != nil {
		return err
	}
	defer ours.Stop()
	program, err := compileFilter(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = program.Close(ctx) }()

	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			errs[w] = func() error {
				vm, err := start(ctx, program, time.Now())
				if err != nil {
					return err
				}
				a := &asker{vm: vm, native: &envoy.Client{Proxy: native}, ours: &envoy.Client{Proxy: ours}}
				for first := uint64(w) * chunk; first < n; first += workers * chunk {
					if err := a.chunk(ctx, seed, first, min(first+chunk, n), t); err != nil {
						return err
					}
				}
				return nil
			}()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	failures, err := ours.Failures()
	if err == nil && failures != nil {
		err = fmt.Errorf("failures of wasm in Envoy: %q", failures)
	}
	return err
}

type asker struct {
	vm           *host.VM
	native, ours *envoy.Client
}

func (a *asker) chunk(ctx context.Context, seed, first, end uint64, t *tally) error {
	now := time.Now()
	a.vm.Now = now.UnixNano()
	f := forge.New(now.Unix(), slack)
	for i := first; i < end; i++ {
		sent := f.Case(seed, i)
		c, sendable := asSeen(sent)
		if !sendable {
			continue
		}
		reason, err := filter(ctx, a.vm, c)
		if err != nil {
			return fmt.Errorf("case %d: %w", i, err)
		}
		mine, err := a.ours.Ask(ctx, sent.Target, sent.Headers)
		if err != nil {
			return fmt.Errorf("case %d: %w", i, err)
		}
		if mine == http.StatusBadRequest {
			continue // refused before any filter
		}
		if (mine == http.StatusOK) != (reason == "") {
			return fmt.Errorf("case %d: the filter in Envoy says %d, in the test host %q: %q", i, mine, reason, c.Headers)
		}
		theirs, err := a.native.Ask(ctx, sent.Target, sent.Headers)
		if err != nil {
			return fmt.Errorf("case %d: %w", i, err)
		}
		native := opinion{who: "jwt_authn"}
		if theirs != http.StatusOK {
			native.err = errRefused
		}
		t.add(i, now.Unix(), c, reason, []opinion{native, {"golang-jwt", golangJWT(c, now)}, {"go-jose", goJose(c, now)}})
	}
	if took := time.Since(now); took > slack*time.Second {
		return fmt.Errorf("%d cases took %s, and their dates are good for %d s only: use a quieter machine", end-first, took, slack)
	}
	return nil
}

// asSeen gives the case as Envoy's filters see it: without the spaces that HTTP takes off, and with repeated
// Authorization headers joined by commas, the empty ones left out. It is false where HTTP cannot carry the case.
func asSeen(c forge.Case) (forge.Case, bool) {
	seen := forge.Case{Target: c.Target, Token: c.Token}
	at := -1
	for _, kv := range c.Headers {
		if strings.ContainsAny(kv[0]+kv[1], "\r\n\x00") || strings.ContainsAny(kv[0], ": ") {
			return c, false
		}
		value := strings.Trim(kv[1], " \t")
		switch {
		case !strings.EqualFold(kv[0], "authorization"):
		case at < 0:
			at = len(seen.Headers)
		case value == "":
			continue
		case seen.Headers[at][1] == "":
			seen.Headers[at][1] = value
			continue
		default:
			seen.Headers[at][1] += "," + value
			continue
		}
		seen.Headers = append(seen.Headers, [2]string{kv[0], value})
	}
	return seen, true
}
