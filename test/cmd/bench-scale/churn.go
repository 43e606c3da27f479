package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/test/bench"
)

// perSecond is the rate of churn, in changes.
const perSecond = 100

// churned changes, makes and deletes routes at a steady rate, each with wait=live, and looks at what grows.
func (m *scale) churned(ctx context.Context) error {
	if err := m.grow(ctx, max(m.loaded, m.hosts/10)); err != nil {
		return err
	}
	if err := m.startAgent(ctx); err != nil {
		return err
	}
	var c churn
	if err := c.run(ctx, m); err != nil {
		return err
	}
	name := fmt.Sprintf("churn, %d changes/s, %v, %d hosts: ", perSecond, m.churn, m.loaded)
	first, last := c.fifth(0), c.fifth(4)
	p := func(v []float64) float64 { return bench.Pct(v, .99) }
	m.table.Bar(name+"wait=live, p99, last fifth to first", "within 20 %", p(last) <= m.slack*1.2*p(first), "%.2f ×: "+
		"%.1f and %.1f ms (p50 %.1f and %.1f)",
		p(last)/p(first), p(last), p(first), bench.Pct(last, .5), bench.Pct(first, .5))
	var lines []string
	flat := true
	for i, w := range watched {
		was, is := c.middle(i, 0), c.middle(i, 4)
		flat = flat && is <= m.slack*1.2*was+w.free
		lines = append(lines, fmt.Sprintf("%s %.0f → %.0f", w.name, was, is))
	}
	m.table.Bar(name+"first fifth → last", "flat within 20 %", flat, "%s", strings.Join(lines, ", "))
	return m.Doctor(ctx, time.Minute)
}

// watched are the figures that must not grow; free is how much one may all the same, so that a small one that wanders
// counts for nothing.
var watched = []struct {
	name string
	free float64
	read func(context.Context, *scale) float64
}{
	{"MB api", 10, func(_ context.Context, m *scale) float64 { return bench.PSS(m.Pid("api")) }},
	{"xds", 10, func(_ context.Context, m *scale) float64 { return bench.PSS(m.Pid("xds")) }},
	{"NATS", 10, func(_ context.Context, m *scale) float64 { return bench.PSS(m.Pid("nats")) }},
	{"agent", 10, func(_ context.Context, m *scale) float64 { return bench.PSS(m.agent.Cmd.Process.Pid) }},
	{"Envoy", 20, func(_ context.Context, m *scale) float64 { return bench.PSS(m.Pid("envoy")) }},
	{"goroutines api", 20, func(ctx context.Context, m *scale) float64 { return m.goroutines(ctx, m.API) }},
	{"xds", 20, func(ctx context.Context, m *scale) float64 { return m.goroutines(ctx, m.XDS) }},
	{"agent", 20, func(ctx context.Context, m *scale) float64 { return m.goroutines(ctx, m.agent.HTTP) }},
	{"threads NATS", 5, func(_ context.Context, m *scale) float64 { return float64(bench.Threads(m.Pid("nats"))) }},
	{"files api", 20, func(_ context.Context, m *scale) float64 { return float64(bench.Files(m.Pid("api"))) }},
	{"xds", 20, func(_ context.Context, m *scale) float64 { return float64(bench.Files(m.Pid("xds"))) }},
	{"NATS", 20, func(_ context.Context, m *scale) float64 { return float64(bench.Files(m.Pid("nats"))) }},
	{"agent", 20, func(_ context.Context, m *scale) float64 { return float64(bench.Files(m.agent.Cmd.Process.Pid)) }},
}

func (m *scale) goroutines(ctx context.Context, url string) float64 {
	n, ok := bench.Metric(ctx, m.System, url+"/metrics", "go_goroutines")
	if !ok {
		return math.NaN() // which is no more than nothing
	}
	return n
}

// churn is what was seen.
type churn struct {
	mu      sync.Mutex
	times   [5][]float64 // of the changes that began in each fifth
	samples [5][][]float64
	failed  error
}

func (c *churn) fifth(i int) []float64 { return c.times[i] }

// middle is a watched figure's median in a fifth.
func (c *churn) middle(figure, fifth int) float64 {
	var all []float64
	for _, s := range c.samples[fifth] {
		all = append(all, s[figure])
	}
	return bench.Pct(all, .5)
}

func (c *churn) run(ctx context.Context, m *scale) error {
	tick, look := time.NewTicker(time.Second/perSecond), time.NewTicker(m.churn.Truncate(time.Second)/25)
	defer tick.Stop()
	defer look.Stop()
	begin := time.Now()
	said := begin
	var under sync.WaitGroup
	made := make(chan string, 100000) // names of routes that can be deleted: more than are ever there at once
	k := 0
	for {
		at := int(5 * time.Since(begin) / m.churn)
		if at > 4 {
			break
		}
		select {
		case <-tick.C:
			n := k
			k++
			under.Go(func() {
				t := time.Now()
				err := m.churnOnce(ctx, n, made)
				c.mu.Lock()
				defer c.mu.Unlock()
				c.times[at], c.failed = append(c.times[at], bench.Since(t)), errors.Join(c.failed, err)
			})
		case <-look.C:
			var s []float64
			for _, w := range watched {
				s = append(s, w.read(ctx, m))
			}
			c.mu.Lock()
			c.samples[at] = append(c.samples[at], s)
			failed, measured := c.failed, len(c.times[at]) > 0
			p99 := bench.Pct(c.times[at], .99)
			c.mu.Unlock()
			if failed != nil {
				return failed
			}
			if measured && time.Since(said) > time.Minute { // a fifth that has just begun has nothing to say
				said = time.Now()
				m.say("%d changes, p99 of this fifth %.1f ms", k, p99)
			}
		}
	}
	under.Wait()
	for i := range c.samples {
		if len(c.samples[i]) == 0 {
			return fmt.Errorf("nothing was looked at in fifth %d: -churn is too short", i+1)
		}
	}
	return c.failed
}

// churnOnce makes change k: of ten, one makes a route, one deletes one that was made before, and the others change one
// that stays.
func (m *scale) churnOnce(ctx context.Context, k int, made chan string) error {
	const query = "?wait=live&timeout=60s"
	mark := strconv.FormatInt(time.Now().UnixNano(), 36)
	switch {
	case k%10 == 0:
		name := fmt.Sprintf("x%d", k)
		direct := map[string]any{"hosts": []string{name + ".example.com"}, "direct_response": map[string]any{
			"status": http.StatusOK, "body": mark,
		}}
		err := bench.PutRoute(ctx, m.System, m.API, name, direct, query)
		made <- name
		return err
	case k%10 == 5 && len(made) > 100: // so many are there besides
		status, body, err := m.Call(ctx, http.MethodDelete, m.API+"/v1/routes/"+<-made+query, nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("delete: %d %.500s", status, body)
		}
		return err
	default:
		return bench.Put(ctx, m.System, m.routes, (k*7919)%m.loaded, mark, query)
	}
}
