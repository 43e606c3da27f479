// Command fuzz-filters feeds the compiled filters with what clients and hosts must not be trusted with: forged
// tokens, nasty headers, any bytes as header maps, properties and configurations, host calls that fail. No call
// may trap, take longer than a second, or make the VM's memory grow for ever; auth and license must give a
// decision. A share of the same requests then goes to the real Envoy, whose counters of wasm failures stay 0.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/wasm/envoy"
	"github.com/marchproxy/marchproxy/test/wasm/forge"
	"github.com/marchproxy/marchproxy/test/wasm/host"
)

func main() {
	n := flag.Uint64("n", 1_000_000, "`requests` to the compiled filters, in turn")
	sent := flag.Uint64("envoy", 100_000, "`requests` to Envoy")
	seed := flag.Uint64("seed", 1, "where the requests come from")
	flag.Parse()
	if err := run(context.Background(), *seed, *n, *sent); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const now = 1_800_000_000

type object = map[string]any

var filters = []string{"auth", "license", "metrics"}

func run(ctx context.Context, seed, n, sent uint64) error {
	root, err := harness.Root()
	if err != nil {
		return err
	}
	workers := uint64(runtime.NumCPU())
	all := make([]*fuzzer, workers)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	from := time.Now()
	for w := range workers {
		wg.Go(func() {
			errs[w] = func() (err error) {
				if all[w], err = newFuzzer(ctx, filepath.Join(root, "wasm-filters", "dist")); err != nil {
					return err
				}
				for i := w; i < n; i += workers {
					if err := all[w].request(ctx, seed, i); err != nil {
						return fmt.Errorf("request %d of seed %d: %w", i, seed, err)
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
	var slowest time.Duration
	memory := make(map[string]uint32)
	for _, f := range all {
		slowest = max(slowest, f.slowest)
		for name, vm := range f.vms {
			memory[name] = max(memory[name], vm.Memory())
		}
	}
	fmt.Printf("%d requests to the compiled filters, seed %d, %.0f s: no trap; the slowest took %s; memory of a VM in "+
		"bytes: %v\n", n, seed, time.Since(from).Seconds(), slowest.Round(time.Microsecond), memory)
	return real(ctx, seed, sent)
}

// configurations is what each filter has between the broken ones.
func configurations() map[string]object {
	var keys []object
	for _, k := range forge.Keys {
		keys = append(keys, object{"kid": k.Kid, "alg": k.Alg, "k": k.Base64()})
	}
	return map[string]object{
		"auth": {"per_route": true, "default_policy": "p", "policies": []object{{"name": "p", "strip": true, "jwt": object{
			"keys": keys, "issuers": []string{forge.Issuer}, "audiences": []string{forge.Audience},
			"forward_claims": []object{{"claim": "sub", "header": "x-auth-sub"}},
		}, "exempt_paths": []object{{"path": "/public", "prefix": true}}}}},
		"license": {
			"per_route": true, "features": []string{"f"}, "expires_at": now + 60,
			"gates": []object{{"path": "/public", "feature": "f"}, {"path": "/a", "feature": "g"}},
		},
		"metrics": {"max_series": 50},
	}
}

// real sends nasty requests to Envoy with the whole chain.
func real(ctx context.Context, seed, n uint64) error {
	c := configurations()
	p, err := envoy.Start(ctx, envoy.Config{Direct: true, Filters: []envoy.Filter{
		{Name: "metrics", Configuration: c["metrics"]},
		{Name: "license", Configuration: c["license"]},
		{Name: "auth", Configuration: c["auth"]},
	}})
	if err != nil {
		return err
	}
	defer p.Stop()
	const workers = 8
	statuses := make([]map[int]int, workers)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		statuses[w] = make(map[int]int)
		wg.Go(func() {
			errs[w] = func() error {
				client := &envoy.Client{Proxy: p}
				f := forge.New(time.Now().Unix(), 0)
				for i := uint64(w); i < n; i += workers {
					c := f.Nasty(seed, i)
					target, headers := sendable(f, c)
					status, err := client.Ask(ctx, target, headers)
					if err != nil {
						return fmt.Errorf("request %d of seed %d: %w", i, seed, err)
					}
					statuses[w][status]++
				}
				return nil
			}()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	failures, err := p.Failures()
	if err != nil {
		return err
	}
	if failures != nil {
		return fmt.Errorf("failures of wasm in Envoy: %q", failures)
	}
	all := make(map[int]int)
	for _, s := range statuses {
		for status, count := range s {
			all[status] += count
		}
	}
	if n > 100 && (all[http.StatusOK] == 0 || all[http.StatusUnauthorized] == 0) {
		return fmt.Errorf("the requests were not what they are meant to be: %v", all)
	}
	if all[http.StatusServiceUnavailable] > 0 {
		return fmt.Errorf("%d requests could not be judged", all[http.StatusServiceUnavailable])
	}
	fmt.Printf("%d requests to Envoy: no failure of wasm; answers by status: %v\n", n, all)
	return nil
}

// sendable leaves out what would be a request of its own. Seven times in eight it also leaves out what makes Envoy
// refuse a request before any filter sees it; bytes that are no text in a header's value are none of that.
func sendable(f *forge.Forge, c forge.Case) (string, host.Headers) {
	raw := f.IntN(8) == 0
	line := strings.NewReplacer("\r", "", "\n", "")
	target := line.Replace(c.Target)
	if !raw {
		target = replace(target, func(b byte) bool { return b > ' ' && b < 0x7f && b != '#' })
		if f.IntN(2) == 0 { // else "%2f" and the like are refused
			target = strings.ReplaceAll(target, "%", "x")
		}
	}
	var out host.Headers
	for _, kv := range c.Headers {
		name, value := line.Replace(kv[0]), line.Replace(kv[1])
		if !raw {
			name = replace(name, func(b byte) bool {
				return b == '-' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
			})
			value = replace(value, func(b byte) bool { return b >= ' ' && b != 0x7f || b == '\t' })
		}
		if name == "" || strings.EqualFold(name, "content-length") || strings.EqualFold(name, "transfer-encoding") {
			continue
		}
		out = append(out, [2]string{name, value})
	}
	return target, out
}

// replace puts an x for each byte that will not do.
func replace(s string, will func(byte) bool) string {
	b := []byte(s)
	for i := range b {
		if !will(b[i]) {
			b[i] = 'x'
		}
	}
	return string(b)
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings
	}
	return b
}
