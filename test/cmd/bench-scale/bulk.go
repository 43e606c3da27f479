package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/test/bench"
	"github.com/marchproxy/marchproxy/test/probe"
)

// tail is the owner of the last tenth of the routes, which comes and goes in one apply.
const tail = "bench-tail"

// add applies the last tenth of the routes at once.
func (m *scale) add(ctx context.Context) error {
	if m.loaded == m.hosts {
		return nil // it has been done before the changes beside all of them
	}
	from := m.hosts - m.hosts/10
	if err := m.grow(ctx, from); err != nil {
		return err
	}
	err := m.bulk(ctx, "add", map[string]any{"owner": tail, "resources": m.routes.Documents(from, m.hosts)})
	if err != nil {
		return err
	}
	m.loaded = m.hosts
	return m.answers(from, http.StatusOK)
}

// delete deletes the last tenth of the routes at once. They belong to an owner of their own, who applies nothing.
func (m *scale) delete(ctx context.Context) error {
	from := m.hosts - m.hosts/10
	own := map[string]any{"owner": tail, "take_over": true, "resources": m.routes.Documents(from, m.hosts)}
	if _, _, err := bench.Apply(ctx, m.System, own); err != nil { // they may have come with the others
		return err
	}
	err := m.bulk(ctx, "delete", map[string]any{"owner": tail, "prune": true, "allow_empty": true, "resources": []any{}})
	if err != nil {
		return err
	}
	m.loaded = from
	return m.answers(from, http.StatusNotFound)
}

// answers looks at some hosts of the last tenth, and at one before it.
func (m *scale) answers(from, want int) error {
	p := probe.New(m.Proxy)
	defer p.Close()
	for _, i := range []int{from, from + 1, (from + m.hosts) / 2, m.hosts - 1} {
		if a, _, err := p.Get(bench.Host(i), "/"); err != nil || a.Status != want {
			return errors.Join(fmt.Errorf("%s answers %d, not %d, though all is live", bench.Host(i), a.Status, want), err)
		}
	}
	if a, _, err := p.Get(bench.Host(from-1), "/"); err != nil || a.Status != http.StatusOK {
		return errors.Join(fmt.Errorf("%s, which nobody has touched, answers %d", bench.Host(from-1), a.Status), err)
	}
	return nil
}

// bulk applies a document while others write.
func (m *scale) bulk(ctx context.Context, what string, document map[string]any) error {
	n := m.hosts / 10
	m.say("%s %d routes in one apply", what, n)
	// Both go on at a steady rate, whether the writes before have been answered or not: who comes in between counts.
	stored := m.beside(ctx, 50, "")
	live := m.beside(ctx, 10, "?wait=live&timeout=60s")
	time.Sleep(500 * time.Millisecond)
	committed, took, err := bench.Apply(ctx, m.System, document)
	waits, err1 := stored()
	lives, err2 := live()
	if err := errors.Join(err, err1, err2); err != nil {
		return err
	}
	name := fmt.Sprintf("%s %d routes of %d in one apply", what, n, m.hosts)
	m.table.Bar(name+": live", "< 2 s", took.Seconds() < m.slack*2, "%.2f s (stored after %.2f s)", took.Seconds(),
		committed.Seconds())
	m.table.Bar(name+": a write beside it waits, p99", "< 200 ms", bench.Pct(waits, .99) < m.slack*200,
		"%.0f ms (p50 %.1f, most %.0f, of %d)", bench.Pct(waits, .99), bench.Pct(waits, .5), slices.Max(waits), len(waits))
	m.table.Bar(name+": a write beside it is live", "< 1 s", slices.Max(lives) < m.slack*1000,
		"most %.0f ms (p50 %.1f, of %d)", slices.Max(lives), bench.Pct(lives, .5), len(lives))
	return nil
}

// beside writes other routes, so many a second, until the function that it returns is called, which waits for what is
// under way and returns the milliseconds of each.
func (m *scale) beside(ctx context.Context, perSecond int, query string) (stop func() ([]float64, error)) {
	var mu sync.Mutex
	var all []float64
	var failed error
	var writes sync.WaitGroup
	end, ended := make(chan struct{}), make(chan struct{})
	from := m.hosts - m.hosts/10
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for k := 0; ; k++ {
			select {
			case <-tick.C:
			case <-end:
				return
			}
			writes.Go(func() {
				begin := time.Now()
				// Each rate has routes of its own: a write that finds what it wants has nothing to wait for.
				i := (k*7919*2 + perSecond) % from
				err := bench.Put(ctx, m.System, m.routes, i, strconv.FormatInt(begin.UnixNano(), 36), query)
				mu.Lock()
				defer mu.Unlock()
				all = append(all, bench.Since(begin))
				failed = errors.Join(failed, err)
			})
		}
	}()
	return func() ([]float64, error) {
		close(end)
		<-ended
		writes.Wait()
		if failed == nil && len(all) == 0 {
			failed = errors.New("nothing was written beside it")
		}
		return all, failed
	}
}
