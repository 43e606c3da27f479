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

// chunk is how many cases share one moment. No date in them is nearer to a change of the answer than 20 seconds,
// so that a chunk may take that long.
const (
	chunk = 50
	slack = 20
)

// workers is the number of connections to each Envoy.
const workers = 8

var errRefused = errors.New("refused")

// jury is two Envoys, one with jwt_authn and one with the filter, and the filter in the test host.
type jury struct {
	native, ours *envoy.Proxy
	program      *host.Program
}

func newJury(ctx context.Context) (j *jury, err error) {
	j = &jury{}
	defer func() {
		if err != nil {
			j.stop(ctx)
		}
	}()
	var keys []map[string]any
	for _, k := range forge.Keys {
		keys = append(keys, object{"kty": "oct", "kid": k.Kid, "alg": k.Alg, "k": k.Base64()})
	}
	if j.native, err = envoy.Start(ctx, envoy.Config{Direct: true, Native: []any{envoy.JWTAuthn(object{
		"issuer": forge.Issuer, "audiences": []string{forge.Audience}, "clock_skew_seconds": forge.Leeway,
		"require_expiration": true,
	}, keys)}}); err != nil {
		return j, err
	}
	if j.ours, err = envoy.Start(ctx,
		envoy.Config{Direct: true, Filters: []envoy.Filter{{Name: "auth", Configuration: configuration()}}}); err != nil {
		return j, err
	}
	j.program, err = compileFilter(ctx)
	return j, err
}

func (j *jury) stop(ctx context.Context) {
	for _, p := range []*envoy.Proxy{j.native, j.ours} {
		if p != nil {
			p.Stop()
		}
	}
	if j.program != nil {
		_ = j.program.Close(ctx)
	}
}

// asker has a connection to each, and a VM of its own.
func (j *jury) asker(ctx context.Context) (*asker, error) {
	vm, err := start(ctx, j.program, time.Now())
	if err != nil {
		return nil, err
	}
	return &asker{vm: vm, native: &envoy.Client{Proxy: j.native}, ours: &envoy.Client{Proxy: j.ours}}, nil
}

// envoys asks two Envoys about each case, and everyone else too.
func envoys(ctx context.Context, seed, n uint64, t *tally) error {
	j, err := newJury(ctx)
	if err != nil {
		return err
	}
	defer j.stop(ctx)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			errs[w] = func() error {
				a, err := j.asker(ctx)
				if err != nil {
					return err
				}
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
	failures, err := j.ours.Failures()
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
		v, err := a.ask(ctx, f.Case(seed, i), now)
		if err != nil {
			return fmt.Errorf("case %d: %w", i, err)
		}
		if v.others != nil {
			t.add(i, now.Unix(), v.seen, v.reason, v.others)
		}
	}
	if took := time.Since(now); took > slack*time.Second {
		return fmt.Errorf("%d cases took %s, and their dates are good for %d s only: use a quieter machine",
			end-first, took, slack)
	}
	return nil
}

// answers is what all say of one case.
type answers struct {
	// seen is the case as Envoy's filters see it.
	seen forge.Case
	// reason is the filter's, "" where it lets pass.
	reason string
	// others is nil where HTTP cannot carry the case, or Envoy refuses it before any filter.
	others []opinion
}

func (a *asker) ask(ctx context.Context, sent forge.Case, now time.Time) (answers, error) {
	c, sendable := asSeen(sent)
	v := answers{seen: c}
	if !sendable {
		return v, nil
	}
	var err error
	if v.reason, err = filter(ctx, a.vm, c); err != nil {
		return v, err
	}
	mine, err := a.ours.Ask(ctx, sent.Target, sent.Headers)
	if err != nil {
		return v, err
	}
	if mine == http.StatusBadRequest {
		return v, nil
	}
	if (mine == http.StatusOK) != (v.reason == "") {
		return v, fmt.Errorf("the filter in Envoy says %d, in the test host %q: %q", mine, v.reason, c.Headers)
	}
	theirs, err := a.native.Ask(ctx, sent.Target, sent.Headers)
	if err != nil {
		return v, err
	}
	native := opinion{who: "jwt_authn"}
	if theirs != http.StatusOK {
		native.err = errRefused
	}
	v.others = []opinion{native, {"golang-jwt", golangJWT(c, now)}, {"go-jose", goJose(c, now)}}
	return v, nil
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
