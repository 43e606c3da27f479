// Command bench-fanout measures what a change costs where thousands of Envoys have to hear of it: clients that
// subscribe and acknowledge as Envoy does, over real connections, on one real xDS server of a whole system. Of a
// hundred clients one is slow, of a thousand one hangs. It fails where a bar of the project is missed, unless -report
// is given.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/bench"
	"github.com/marchproxy/marchproxy/test/fanout"
	"github.com/marchproxy/marchproxy/test/floor"
	"github.com/marchproxy/marchproxy/test/harness"
)

var (
	hosts   = flag.Int("hosts", 10000, "hosts, a tenth as many services")
	sizes   = flag.String("clients", "1000,5000", "numbers of clients")
	changes = flag.Int("changes", 100, "single changes, half of them with hung clients")
	burst   = flag.Int("burst", 500, "changes in the burst")
	report  = flag.Bool("report", false, "only report: missed bars are no failure")
)

func main() {
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench-fanout:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var missed []string
	for s := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		m, err := measure(ctx, n)
		if err != nil {
			return fmt.Errorf("%d clients: %w", n, err)
		}
		missed = append(missed, m...)
	}
	for _, m := range missed {
		fmt.Println("MISSED:", m)
	}
	if len(missed) > 0 && !*report {
		return errors.New("a bar was missed")
	}
	return nil
}

// system is one with its clients.
type system struct {
	*harness.System
	routes  *bench.Routes
	clients *fanout.Fleet
	n, next int
}

func measure(ctx context.Context, n int) (missed []string, err error) {
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "1")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	b := &system{System: s, n: n}
	if b.routes, err = bench.NewRoutes(10); err != nil {
		return nil, err
	}
	defer b.routes.Close()
	if _, _, err := bench.Apply(ctx, s, map[string]any{
		"owner":     bench.Owner,
		"resources": b.routes.Documents(0, *hosts),
	}); err != nil {
		return nil, err
	}
	key, err := s.ClusterKey()
	if err != nil {
		return nil, err
	}
	pid := s.Pid("xds")
	rss, heap := floor.RSS(pid), b.heap(ctx)
	t0, cpu := time.Now(), floor.CPU(pid)
	b.clients = fanout.Start(ctx, fanout.Options{
		Addr: s.GRPC, Key: key, Clients: n, Delay: 5 * time.Millisecond,
		Slow: n / 100, Hung: n / 1000,
	})
	defer b.clients.Close()
	all := map[translate.Type]int{
		translate.TypeScope: *hosts, translate.TypeEndpoint: *hosts / 10,
		translate.TypeCluster: *hosts / 10, translate.TypeListener: 1,
	}
	if err := b.clients.Await(all, true, 10*time.Minute); err != nil {
		return nil, err
	}
	there := time.Since(t0)
	if err := b.settled(); err != nil {
		return nil, err
	}
	fmt.Printf("%d clients, %d hosts\n  all at once, with nothing: %v until all healthy ones have everything, %d MB, "+
		"xds %.1f ms of CPU a client, RSS %d MB (%d before), %d connections tried again\n",
		n, *hosts, there.Round(time.Millisecond), b.clients.Bytes()>>20, ms(floor.CPU(pid)-cpu)/float64(n),
		floor.RSS(pid), rss, b.clients.Again())

	with, without, err := b.single(ctx, pid)
	if err != nil {
		return nil, err
	}
	if err := b.live(ctx); err != nil {
		return nil, err
	}
	if err := b.flood(ctx); err != nil {
		return nil, err
	}
	grown := b.heap(ctx) - heap
	kb := float64(floor.RSS(pid)-rss) * 1024 / float64(n)
	fmt.Printf("  memory a client: %.0f KB of RSS, %d KB of heap and stacks in use\n", kb, grown/int64(n)>>10)
	if err := b.reconnect(pid); err != nil {
		return nil, err
	}

	check := func(ok bool, format string, args ...any) {
		if !ok {
			missed = append(missed, fmt.Sprintf("%d clients: ", n)+fmt.Sprintf(format, args...))
		}
	}
	bar := 100.0
	if n > 1000 {
		bar = 500
	}
	check(bench.Pct(without, .99) < bar, "p99 %.0f ms to the last healthy ACK is not under %.0f",
		bench.Pct(without, .99), bar)
	check(kb < 200, "%.0f KB a client are not under 200", kb)
	check(bench.Pct(with, .99) < 1.05*bench.Pct(without, .99), "hung clients change the p99 from %.0f to %.0f ms, by 5 "+
		"%% or more", bench.Pct(without, .99), bench.Pct(with, .99))
	return missed, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// heap is what the xDS server has in use of heap and stacks, after its last collection.
func (b *system) heap(ctx context.Context) int64 {
	heap, _ := bench.Metric(ctx, b.System, b.XDS+"/metrics", "go_memstats_heap_inuse_bytes")
	stacks, _ := bench.Metric(ctx, b.System, b.XDS+"/metrics", "go_memstats_stack_inuse_bytes")
	return int64(heap + stacks)
}

// put changes one route, and returns when it was asked.
func (b *system) put(ctx context.Context, i int, mark, query string) (time.Time, []byte, error) {
	raw, err := json.Marshal(map[string]any{"spec": b.routes.Spec(i%*hosts, mark), "owner": bench.Owner})
	if err != nil {
		return time.Time{}, nil, err
	}
	t0 := time.Now()
	status, body, err := b.Call(ctx, http.MethodPut, b.API+"/v1/routes/"+bench.Name(i%*hosts)+query, string(raw))
	if err == nil && status != http.StatusOK && status != http.StatusAccepted {
		err = fmt.Errorf("put: %d %s", status, body)
	}
	return t0, body, err
}

// one is one change, in ms until the last healthy client has acknowledged it.
func (b *system) one(ctx context.Context) (float64, error) {
	b.next++
	mark := fmt.Sprintf("mark-%d-", b.next)
	w := b.clients.Watch(mark, 1)
	t0, _, err := b.put(ctx, b.next*7919, mark, "")
	if err != nil {
		return 0, err
	}
	last, err := w.Wait(time.Minute)
	return ms(last.Sub(t0)), errors.Join(err, b.clients.Err())
}

// single makes changes one after the other, in turns with clients that hang and without.
func (b *system) single(ctx context.Context, pid int) (with, without []float64, err error) {
	for range 3 {
		if _, err := b.one(ctx); err != nil {
			return nil, nil, err
		}
	}
	cpu, api := floor.CPU(pid), floor.CPU(b.Pid("api"))
	const turn = 5
	for k := range *changes {
		hung := k/turn%2 == 1
		if k%turn == 0 && hung {
			b.clients.Hang()
		} else if k%turn == 0 {
			b.clients.Release()
		}
		took, err := b.one(ctx)
		if err != nil {
			return nil, nil, err
		}
		if hung {
			with = append(with, took)
		} else {
			without = append(without, took)
		}
	}
	b.clients.Release()
	fmt.Printf("  one change until the last healthy client's ACK: p50 %.1f p99 %.1f ms; with %d hung clients p50 %.1f "+
		"p99 %.1f (p99 %.2f times); xds %.0f µs of CPU a push, api %.2f ms a change\n",
		bench.Pct(without, .5), bench.Pct(without, .99), b.n/1000, bench.Pct(with, .5), bench.Pct(with, .99),
		bench.Pct(with, .99)/bench.Pct(without, .99), ms(floor.CPU(pid)-cpu)*1000/float64(*changes*b.n),
		ms(floor.CPU(b.Pid("api"))-api)/float64(*changes))
	return with, without, nil
}

// live asks for wait=live: with everybody's answer, the slow ones' included, and with clients that hang.
func (b *system) live(ctx context.Context) error {
	var took []float64
	for range 10 {
		b.next++
		t0, _, err := b.put(ctx, b.next*7919, fmt.Sprintf("mark-%d-", b.next), "?wait=live&timeout=30s")
		if err != nil {
			return err
		}
		took = append(took, ms(time.Since(t0)))
	}
	b.clients.Hang()
	b.next++
	_, body, err := b.put(ctx, b.next*7919, fmt.Sprintf("mark-%d-", b.next), "?wait=live&timeout=3s")
	b.clients.Release()
	if err != nil {
		return err
	}
	var answer struct {
		Live json.RawMessage `json:"live"`
	}
	_ = json.Unmarshal(body, &answer) // it is shown as it is
	fmt.Printf("  wait=live, slow clients among them: p50 %.0f max %.0f ms; with hung ones it says %s\n",
		bench.Pct(took, .5), bench.Pct(took, 1), answer.Live)
	return nil
}

// flood makes many changes at once.
func (b *system) flood(ctx context.Context) error {
	b.next++
	mark := fmt.Sprintf("mark-%d-", b.next)
	w := b.clients.Watch(mark, *burst)
	t0 := time.Now()
	var group sync.WaitGroup
	errs := make([]error, 16)
	for k := range errs {
		group.Go(func() {
			for i := k; i < *burst && errs[k] == nil; i += len(errs) {
				_, _, errs[k] = b.put(ctx, i, mark, "")
			}
		})
	}
	group.Wait()
	written := time.Since(t0)
	last, err := w.Wait(2 * time.Minute)
	if err := errors.Join(append(errs, err, b.clients.Err())...); err != nil {
		return err
	}
	fmt.Printf("  %d changes at once: stored after %v, acknowledged by the last healthy client after %v\n", *burst,
		written.Round(time.Millisecond), last.Sub(t0).Round(time.Millisecond))
	return nil
}

// reconnect cuts every connection.
func (b *system) reconnect(pid int) error {
	if err := b.settled(); err != nil {
		return err
	}
	t0, cpu, again := time.Now(), floor.CPU(pid), b.clients.Again()
	b.clients.Reconnect()
	if err := b.clients.Await(nil, false, 10*time.Minute); err != nil {
		return err
	}
	if err := b.settled(); err != nil {
		return err
	}
	fmt.Printf("  all come back at once: %v until every one is known to have everything, %d KB sent, %d resources sent "+
		"again, xds %.1f ms of CPU a client, RSS %d MB, %d connections tried again\n",
		time.Since(t0).Round(time.Millisecond), b.clients.Bytes()>>10, b.clients.Total(), ms(floor.CPU(pid)-cpu)/float64(b.n),
		floor.RSS(pid), b.clients.Again()-again)
	return nil
}

// settled waits until the xDS server knows of every client that it has everything.
func (b *system) settled() error {
	for t0 := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		head, err := b.revision()
		if err != nil {
			return err
		}
		applied, err := b.applied()
		if err := errors.Join(err, b.clients.Err()); err != nil {
			return err
		}
		switch {
		case applied >= head:
			return nil
		case time.Since(t0) > 10*time.Minute:
			return fmt.Errorf("revision %.0f is live, not %.0f", applied, head)
		}
	}
}

func (b *system) gauge(name string) (float64, error) {
	v, ok := bench.Metric(context.Background(), b.System, b.XDS+"/metrics", name)
	if !ok {
		return 0, fmt.Errorf("no metric %s", name)
	}
	return v, nil
}

func (b *system) revision() (float64, error) { return b.gauge("marchproxy_xds_revision") }

// applied is the revision that every Envoy serves, -1 while some are missing.
func (b *system) applied() (float64, error) {
	proxies, err := b.gauge("marchproxy_xds_proxies")
	if err != nil || int(proxies) < b.n {
		return -1, err
	}
	return b.gauge("marchproxy_xds_live_revision")
}
