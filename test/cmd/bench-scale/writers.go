package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/test/bench"
)

// writers compares many with one, in turns. Nobody waits until it is live.
func (m *scale) writers(ctx context.Context) error {
	const many, rounds = 32, 3
	span := 2 * time.Second
	var one, all []float64
	for range rounds {
		for _, n := range []int{1, many} {
			times, err := m.write(ctx, n, span)
			if err != nil {
				return err
			}
			if n == 1 {
				one = append(one, times...)
			} else {
				all = append(all, times...)
			}
		}
	}
	seconds := rounds * span.Seconds()
	rate1, rate := float64(len(one))/seconds, float64(len(all))/seconds
	m.table.Bar(fmt.Sprintf("%d writers, %d objects", many, m.loaded), "≥ 3 × one writer's rate", rate*m.slack >= 3*rate1,
		"%.2f ×: %.0f and %.0f writes/s", rate/rate1, rate, rate1)
	m.table.Bar("one writer, p50", "not slower than 1.4 ms", bench.Pct(one, .5) <= m.slack*1.4, "%.2f ms (p99 %.1f; "+
		"each of %d: p50 %.1f, p99 %.1f)",
		bench.Pct(one, .5), bench.Pct(one, .99), many, bench.Pct(all, .5), bench.Pct(all, .99))
	return nil
}

// write has some writers write for a while, each its own routes, and returns the milliseconds of each write.
func (m *scale) write(ctx context.Context, n int, span time.Duration) ([]float64, error) {
	var mu sync.Mutex
	var all []float64
	var failed error
	var group sync.WaitGroup
	begin := time.Now()
	for w := range n {
		group.Go(func() {
			var own []float64
			var err error
			for k := 0; err == nil && time.Since(begin) < span; k++ {
				t := time.Now()
				err = bench.Put(ctx, m.System, m.routes, (w+n*(k*31%97))%m.loaded, strconv.FormatInt(t.UnixNano(), 36), "")
				own = append(own, bench.Since(t))
			}
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, own...), errors.Join(failed, err)
		})
	}
	group.Wait()
	return all, failed
}

// apis has two write in turn, on one database, beside one that does it alone before and after.
func (m *scale) apis(ctx context.Context) error {
	const writes = 100
	turns := func(urls ...string) (all []float64, err error) {
		for k := range writes {
			t := time.Now()
			mark := strconv.FormatInt(t.UnixNano(), 36)
			if err := bench.PutAt(ctx, m.System, urls[k%len(urls)], m.routes, (k*7919)%m.loaded, mark, ""); err != nil {
				return nil, err
			}
			all = append(all, bench.Since(t))
		}
		return all, nil
	}
	one, err := turns(m.API)
	if err != nil {
		return err
	}
	other, err := m.StartAPI(ctx)
	if err != nil {
		return err
	}
	two, err := turns(m.API, other.URL)
	if err := errors.Join(err, other.Stop()); err != nil {
		return err
	}
	after, err := turns(m.API)
	if err != nil {
		return err
	}
	one = append(one, after...)
	m.table.Bar(fmt.Sprintf("two apis that write in turn, %d objects, p50", m.loaded), "≤ 1.5 × one api's",
		bench.Pct(two, .5) <= m.slack*1.5*bench.Pct(one, .5), "%.2f ×: %.2f and %.2f ms (p99 %.1f and %.1f)",
		bench.Pct(two, .5)/bench.Pct(one, .5), bench.Pct(two, .5), bench.Pct(one, .5), bench.Pct(two, .99),
		bench.Pct(one, .99))
	return nil
}

// rest is what the parts use while nothing happens.
func (m *scale) rest(ctx context.Context) error {
	if err := m.startAgent(ctx); err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // what came before dies away
	pids := []int{m.Pid("api"), m.Pid("nats"), m.Pid("xds"), m.agent.Cmd.Process.Pid, m.Postmaster(), m.Pid("envoy")}
	names := []string{"api", "NATS", "xds", "agent", "PostgreSQL", "Envoy"}
	before := make([]time.Duration, len(pids))
	for i, pid := range pids {
		before[i] = bench.CPU(pid)
	}
	begin := time.Now()
	time.Sleep(m.idle)
	figure := ""
	for i, pid := range pids {
		figure += fmt.Sprintf(", %s %.2f %%", names[i], 100*(bench.CPU(pid)-before[i]).Seconds()/time.Since(begin).Seconds())
	}
	m.table.Note(fmt.Sprintf("idle, %d hosts, %v: CPU, of one core", m.loaded, m.idle), "%s", figure[2:])
	return nil
}
