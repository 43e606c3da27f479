// Command bench-certificates measures what a certificate more, another one and one less cost beside 1,000 and
// 10,000 others, where these name the gateway (-forms named) and where the listener lists them (listed): how long until
// wait=live returns and the handshake shows it, Envoy's CPU and the updates of its listeners; what 100,000 handshakes
// with names that nobody has, and as many below one wildcard, leave in memory; and whether every name is served while
// the xDS server is away. It fails where a bar is missed, unless -report is given.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/floor"
	"github.com/marchproxy/marchproxy/test/harness"
)

func main() {
	sizes := flag.String("certificates", "1000,10000", "numbers of certificates")
	forms := flag.String("forms", "named,listed", "how certificates come to the listener")
	rounds := flag.Int("rounds", 300, "certificates that are added, rotated and removed at each size")
	names := flag.Int("names", 100000, "handshakes with made-up names, and as many below a wildcard")
	report := flag.Bool("report", false, "only report: missed bars are no failure")
	flag.Parse()
	if err := run(context.Background(), *forms, *sizes, *rounds, *names, *report); err != nil {
		fmt.Fprintln(os.Stderr, "bench-certificates:", err)
		os.Exit(1)
	}
}

// row is what was measured at one size.
type row struct {
	form                    string
	certificates            int
	added, rotated, removed []float64          // ms until wait=live
	cpu                     map[string]float64 // by process, ms a change
	updates                 int                // of listeners
	bulk, restart           time.Duration
	started, unknown, wild  int // MiB of Envoy
	missing                 int // names that were not served without xds
	rates                   [2]float64
}

func run(ctx context.Context, forms, sizes string, rounds, names int, report bool) error {
	var missed []string
	for form := range strings.SplitSeq(forms, ",") {
		var rows []row
		for s := range strings.SplitSeq(sizes, ",") {
			n, err := strconv.Atoi(s)
			if err != nil {
				return err
			}
			r, err := measure(ctx, form, n, rounds, names)
			if err != nil {
				return fmt.Errorf("%d certificates, %s: %w", n, form, err)
			}
			rows = append(rows, r)
			show(r)
		}
		missed = append(missed, bars(rows)...)
	}
	for _, m := range missed {
		fmt.Println("MISSED:", m)
	}
	if len(missed) > 0 && !report {
		return errors.New("a bar was missed")
	}
	return nil
}

func show(r row) {
	fmt.Printf("%6d certificates, %s  wait=live ms, p50 and p99: added %.1f %.1f | rotated %.1f %.1f | removed %.1f "+
		"%.1f | CPU ms a change: Envoy %.2f, api %.2f, xds %.2f | %d updates of listeners\n",
		r.certificates, r.form, pct(r.added, .5), pct(r.added, .99), pct(r.rotated, .5), pct(r.rotated, .99),
		pct(r.removed, .5), pct(r.removed, .99), r.cpu["envoy"], r.cpu["api"], r.cpu["xds"], r.updates)
	fmt.Printf("        all live in %v, Envoy back after %v | MiB: %d, after made-up names %d (%.0f/s), after names of "+
		"a wildcard %d (%.0f/s) | not served without xds: %d\n",
		r.bulk.Round(time.Millisecond), r.restart.Round(time.Millisecond), r.started, r.unknown, r.rates[0], r.wild,
		r.rates[1], r.missing)
}

func bars(rows []row) (missed []string) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			missed = append(missed, fmt.Sprintf(format, args...))
		}
	}
	for _, r := range rows {
		what := fmt.Sprintf("%d certificates, %s", r.certificates, r.form)
		check(r.updates == 0, "%s: the listeners were updated %d times", what, r.updates)
		check(r.missing == 0, "%s: %d names were not served without xds", what, r.missing)
		check(r.cpu["envoy"] <= 1.2*rows[0].cpu["envoy"], "%s: a change costs Envoy %.2f ms of CPU, beside %d it was %.2f",
			what, r.cpu["envoy"], rows[0].certificates, rows[0].cpu["envoy"])
		check(r.unknown-r.started <= 64, "%s: made-up names left %d MiB", what, r.unknown-r.started)
		check(r.wild-r.unknown <= 64, "%s: names of a wildcard left %d MiB", what, r.wild-r.unknown)
		if r.form == "listed" {
			continue // the gateway is written, which is as long as its list
		}
		for name, of := range map[string]func(row) []float64{
			"added": func(r row) []float64 { return r.added }, "rotated": func(r row) []float64 { return r.rotated },
			"removed": func(r row) []float64 { return r.removed },
		} {
			now, first := pct(of(r), .5), pct(of(rows[0]), .5)
			check(now <= usual*first, "%s: %s ones are live after %.1f ms, beside %d after %.1f", what, name, now,
				rows[0].certificates, first)
		}
	}
	return missed
}

// usual is how much longer a change may take beside many certificates than beside few.
const usual = 1.5

func pct(v []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

// bench is a running system with its certificates.
type bench struct {
	*harness.System
	named  bool // certificates name the gateway, all but the first
	issuer *issuer
	port   int
	list   []string
}

func measure(ctx context.Context, form string, n, rounds, names int) (r row, err error) {
	r.form, r.certificates = form, n
	ports, err := porttest.Take(1)
	if err != nil {
		return r, err
	}
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "1")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	b := &bench{System: s, port: ports[0], named: form == "named"}
	if b.issuer, err = newIssuer(); err != nil {
		return r, err
	}
	if err := b.fill(ctx, n, &r); err != nil {
		return r, err
	}
	if err := b.changes(ctx, rounds, &r); err != nil {
		return r, err
	}
	r.started = floor.RSS(s.Pid("envoy"))
	r.rates[0] = b.flood(names, func(i int) string { return fmt.Sprintf("made-up-%d.example.org", i) }, "first.test")
	r.unknown = floor.RSS(s.Pid("envoy"))
	r.rates[1] = b.flood(names, func(i int) string { return fmt.Sprintf("n%d.wild.test", i) }, "*.wild.test")
	r.wild = floor.RSS(s.Pid("envoy"))
	return r, b.away(ctx, &r)
}

// fill makes the certificates, a thousand at a time, and the listener that has them.
func (b *bench) fill(ctx context.Context, n int, r *row) error {
	begin := time.Now()
	var objects []any
	add := func(name string, hosts ...string) error {
		c, err := b.certificate(name, hosts...)
		if err != nil {
			return err
		}
		objects, b.list = append(objects, c), append(b.list, name)
		if len(objects) < 1000 {
			return nil
		}
		err = b.apply(ctx, "", objects...)
		objects = nil
		return err
	}
	if err := errors.Join(add("first", "first.test"), add("wild", "*.wild.test")); err != nil {
		return err
	}
	for i := range n - 2 {
		if err := add(fmt.Sprintf("c%d", i), fmt.Sprintf("c%d.test", i)); err != nil {
			return err
		}
	}
	err := b.apply(ctx, "?wait=live&timeout=60s", append(objects, b.gateway())...)
	r.bulk = time.Since(begin)
	return err
}

// certificate is one as the API takes it; the first is the listener's default, and so listed, in both forms.
func (b *bench) certificate(name string, hosts ...string) (map[string]any, error) {
	c, err := b.issuer.certificate(name, hosts...)
	if err == nil && b.named && name != "first" {
		c["spec"].(map[string]any)["gateways"] = []string{"default"}
	}
	return c, err
}

func (b *bench) gateway() map[string]any {
	list := b.list
	if b.named {
		list = []string{"first"}
	}
	listeners := []any{
		map[string]any{"name": "http", "port": b.ProxyPort},
		map[string]any{"name": "https", "port": b.port, "protocol": "https", "certificates": list},
	}
	return map[string]any{"kind": "Gateway", "name": "default", "spec": map[string]any{"listeners": listeners}}
}

func (b *bench) apply(ctx context.Context, query string, objects ...any) error {
	status, raw, err := b.Call(ctx, http.MethodPost, b.API+"/v1/apply"+query, map[string]any{"resources": objects})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("apply: %d … %s", status, raw[max(0, len(raw)-500):])
	}
	return err
}

func (b *bench) remove(ctx context.Context, name string) error {
	status, raw, err := b.Call(ctx, http.MethodDelete, b.API+"/v1/certificates/"+name+"?wait=live", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("delete: %d %s", status, raw)
	}
	return err
}

// changes adds, rotates and removes certificates, one at a time, each looked at when it is said to be live.
func (b *bench) changes(ctx context.Context, rounds int, r *row) error {
	timed := func(into *[]float64, name string, want string, change func() error) error {
		begin := time.Now()
		if err := change(); err != nil {
			return err
		}
		*into = append(*into, float64(time.Since(begin).Microseconds())/1000)
		if got, err := b.handshake(name); err != nil || got != want {
			return fmt.Errorf("%s is live, and the handshake shows %q (%w)", name, got, err)
		}
		return nil
	}
	var cpu map[string]time.Duration
	var updates int
	var begin time.Time
	const warm = 3
	// What the parts use by themselves is no part of a change's price: Envoy has more statistics to flush with more
	// certificates, and more time to do so where the rest of the system takes longer.
	const rest = 10 * time.Second
	used := func() map[string]time.Duration {
		out := map[string]time.Duration{}
		for _, part := range []string{"envoy", "api", "xds"} {
			out[part] = floor.CPU(b.Pid(part))
		}
		return out
	}
	before := used()
	time.Sleep(rest)
	idle := used()
	for k := range rounds + warm {
		if k == warm {
			*r = row{form: r.form, certificates: r.certificates, bulk: r.bulk}
			cpu, begin = used(), time.Now()
			var err error
			if updates, err = b.updates(ctx); err != nil {
				return err
			}
		}
		name, host := fmt.Sprintf("new%d", k), fmt.Sprintf("new%d.test", k)
		first, err := b.certificate(name, host)
		if err != nil {
			return err
		}
		second, err := b.certificate(name, fmt.Sprintf("rotated%d.test", k), host)
		if err != nil {
			return err
		}
		b.list = append(b.list, name)
		err = timed(&r.added, host, host, func() error {
			if b.named {
				return b.apply(ctx, "?wait=live", first)
			}
			return b.apply(ctx, "?wait=live", first, b.gateway())
		})
		if err == nil {
			err = timed(&r.rotated, host, fmt.Sprintf("rotated%d.test", k),
				func() error { return b.apply(ctx, "?wait=live", second) })
		}
		b.list = b.list[:len(b.list)-1]
		if err == nil {
			err = timed(&r.removed, host, "first.test", func() error {
				if b.named {
					return b.remove(ctx, name)
				}
				return b.apply(ctx, "?wait=live", b.gateway())
			})
		}
		if err != nil {
			return err
		}
	}
	r.cpu = map[string]float64{}
	took := time.Since(begin).Seconds()
	for part, now := range used() {
		own := float64(idle[part]-before[part]) * took / rest.Seconds()
		r.cpu[part] = (float64(now-cpu[part]) - own) / 1e6 / float64(3*rounds)
	}
	now, err := b.updates(ctx)
	r.updates = now - updates
	return err
}

// updates counts the listeners that Envoy was sent, from its statistics.
func (b *bench) updates(ctx context.Context) (int, error) {
	status, raw, err := b.Call(ctx, http.MethodGet, b.Admin+"/stats?filter=^listener_manager.lds.update_success$", nil)
	if err != nil || status != http.StatusOK {
		return 0, errors.Join(fmt.Errorf("stats: %d", status), err)
	}
	_, value, _ := strings.Cut(strings.TrimSpace(string(raw)), ": ")
	return strconv.Atoi(value)
}

// flood makes handshakes with names without end, and returns how many a second.
func (b *bench) flood(n int, name func(i int) string, want string) float64 {
	var at, wrong atomic.Int64
	begin := time.Now()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := int(at.Add(1)); i <= n; i = int(at.Add(1)) {
				if got, err := b.handshake(name(i)); err != nil || got != want {
					wrong.Add(1)
				}
			}
		})
	}
	all.Wait()
	if w := wrong.Load(); w > 0 {
		fmt.Printf("        %d of %d such handshakes did not show %s\n", w, n, want)
	}
	return float64(n) / time.Since(begin).Seconds()
}

// away restarts Envoy, stops the xDS server, and looks for every name. Few of them have been asked for since.
func (b *bench) away(ctx context.Context, r *row) error {
	old := b.Pid("envoy")
	begin := time.Now()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		return err
	}
	for b.Pid("envoy") == old || b.Pid("envoy") == 0 {
		if time.Since(begin) > time.Minute {
			return errors.New("envoy does not come back in a minute")
		}
		time.Sleep(5 * time.Millisecond)
	}
	for {
		if got, err := b.handshake("first.test"); err == nil && got == "first.test" {
			break
		}
		if time.Since(begin) > 2*time.Minute {
			return errors.New("envoy serves nothing two minutes after its restart")
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.restart = time.Since(begin)
	if err := b.apply(ctx, "?wait=live&timeout=60s", b.gateway()); err != nil {
		return err
	}
	if err := syscall.Kill(b.Pid("xds"), syscall.SIGSTOP); err != nil {
		return err
	}
	for _, c := range b.list {
		want, ok := strings.CutPrefix(c, "c")
		if !ok {
			continue
		}
		if got, err := b.handshake("c" + want + ".test"); err != nil || got != "c"+want+".test" {
			r.missing++
		}
	}
	return syscall.Kill(b.Pid("xds"), syscall.SIGCONT)
}
