// Command chaos kills the api, xds, NATS and PostgreSQL with SIGKILL, singly and in pairs, at moments that
// a seed decides, under a load of writes; between the kills the stream is purged, and stream and database come
// back from older copies. Then it checks that every acknowledged write is in the database and on Envoy (of those
// after a backup that was restored only that all parts agree), that no half of an unacknowledged one is, that
// revisions are gapless, and that Envoy served throughout.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

func main() {
	seed := flag.Uint64("seed", 1, "decides what is killed, when")
	kills := flag.Int("kills", 20, "kills, of one or two parts each; after every third, something rarer")
	flag.Parse()
	fmt.Printf("seed %d, %d kills\n", *seed, *kills)
	if err := run(context.Background(), *seed, *kills); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: seed %d: %v\n", *seed, err)
		os.Exit(1)
	}
}

const writers = 4

// writer writes pairs of routes, each pair in one transaction with one mark, so that a half would show.
type writer struct {
	n int
	// mu is held during a write, so that nobody takes a copy of what is known in the middle of it.
	mu   sync.Mutex
	last int // the last mark that was acknowledged
	// maybe are marks after it whose outcome is not known.
	maybe []int
	// old is the same as of the backup.
	old struct {
		last  int
		maybe []int
	}
}

func (w *writer) document(mark int) map[string]any {
	var out []any
	for _, half := range []string{"a", "b"} {
		name := fmt.Sprintf("w%d%s", w.n, half)
		out = append(out, map[string]any{"kind": "Route", "name": name, "spec": map[string]any{
			"hosts": []string{name + ".example.com"}, "direct_response": map[string]any{"status": 200, "body": fmt.Sprint(mark)},
		}})
	}
	return map[string]any{"resources": out}
}

func (w *writer) run(ctx context.Context, s *harness.System, acked *atomic.Int64) {
	for mark := 1; ctx.Err() == nil; mark++ {
		if w.write(ctx, s, mark) {
			acked.Add(1)
			continue
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (w *writer) write(ctx context.Context, s *harness.System, mark int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	status, _, err := s.Call(ctx, http.MethodPost, s.API+"/v1/apply", w.document(mark))
	if err == nil && status == 200 {
		w.last, w.maybe = mark, nil
		return true
	}
	w.maybe = append(w.maybe, mark)
	return false
}

func run(ctx context.Context, seed uint64, kills int) (err error) {
	s, err := harness.Start(ctx, "--no-demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	status, body, err := s.Call(ctx, http.MethodPut, s.API+"/v1/routes/steady?wait=live", `{"spec":{"hosts":["steady.example.com"],"direct_response":{"status":200,"body":"steady"}}}`)
	if err != nil || status != 201 {
		return fmt.Errorf("first route: %d %s %w", status, body, err)
	}
	rng := rand.New(rand.NewPCG(seed, seed))
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var acked, served, failed atomic.Int64
	all := make([]*writer, writers)
	for n := range all {
		all[n] = &writer{n: n}
		wg.Go(func() { all[n].run(load, s, &acked) })
	}
	wg.Go(func() { steady(load, s.Proxy, &served, &failed) })
	err = follow(ctx, plan(rng, kills), s, all)
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
	return check(ctx, s, all)
}

// follow does what was planned, at its moments.
func follow(ctx context.Context, steps []step, s *harness.System, all []*writer) error {
	for _, st := range steps {
		time.Sleep(st.after) // the moment is part of the experiment
		fmt.Println(st)
		if err := st.do(ctx, s, all); err != nil {
			return fmt.Errorf("%s: %w", st, err)
		}
	}
	return nil
}

func steady(ctx context.Context, addr string, served, failed *atomic.Int64) {
	p := probe.New(addr)
	defer p.Close()
	for ctx.Err() == nil {
		a, _, err := p.Get("steady.example.com", "/")
		if served.Add(1); err != nil || a.Status != 200 || a.Body != "steady" {
			failed.Add(1)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// check waits until all is well again, and then looks for what was lost.
func check(ctx context.Context, s *harness.System, all []*writer) error {
	var res api.ApplyResult
	for t0 := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		status, body, err := s.Call(ctx, http.MethodPut, s.API+"/v1/routes/last?wait=live&timeout=5s", fmt.Sprintf(`{"spec":{"hosts":["last.example.com"],"direct_response":{"status":200,"body":"%d"}}}`, time.Now().UnixNano()))
		if err == nil && (status == 200 || status == 201) {
			if err := json.Unmarshal(body, &res); err != nil {
				return err
			}
			break
		}
		if time.Since(t0) > 60*time.Second {
			return fmt.Errorf("the system does not recover: %d %s %w", status, body, err)
		}
	}
	for _, w := range all {
		if err := w.check(ctx, s); err != nil {
			return err
		}
	}
	if err := gapless(ctx, s, res.Revision); err != nil {
		return err
	}
	return s.Doctor(ctx, 20*time.Second)
}

func (w *writer) check(ctx context.Context, s *harness.System) error {
	p := probe.New(s.Proxy)
	defer p.Close()
	var seen []string
	for _, half := range []string{"a", "b"} {
		name := fmt.Sprintf("w%d%s", w.n, half)
		status, body, err := s.Call(ctx, http.MethodGet, s.API+"/v1/routes/"+name, nil)
		if err != nil || status != 200 {
			return fmt.Errorf("%s is lost: %d %s %w", name, status, body, err)
		}
		var o struct {
			Spec struct {
				DirectResponse struct{ Body string } `json:"direct_response"`
			}
		}
		if err := json.Unmarshal(body, &o); err != nil {
			return err
		}
		a, _, err := p.Get(name+".example.com", "/")
		if err != nil {
			return err
		}
		seen = append(seen, o.Spec.DirectResponse.Body, a.Body)
	}
	allowed := map[string]bool{fmt.Sprint(w.last): true}
	for _, m := range w.maybe {
		allowed[fmt.Sprint(m)] = true
	}
	for _, x := range seen {
		if x != seen[0] || !allowed[x] {
			return fmt.Errorf("writer %d: database and Envoy have %v for the two halves; acknowledged was %d, unknown %v", w.n, seen, w.last, w.maybe)
		}
	}
	return nil
}

func gapless(ctx context.Context, s *harness.System, head int64) error {
	next, cursor := head, ""
	for {
		status, body, err := s.Call(ctx, http.MethodGet, s.API+"/v1/revisions?limit=1000"+cursor, nil)
		if err != nil || status != 200 {
			return fmt.Errorf("revisions: %d %s %w", status, body, err)
		}
		var page api.RevisionList
		if err := json.Unmarshal(body, &page); err != nil {
			return err
		}
		for _, r := range page.Items {
			if r.Revision != next {
				return fmt.Errorf("revision %d is missing", next)
			}
			next--
		}
		if page.NextCursor == "" {
			break
		}
		cursor = "&cursor=" + page.NextCursor
	}
	if next != 0 {
		return fmt.Errorf("revision %d is missing", next)
	}
	fmt.Printf("%d revisions, gapless; every acknowledged write is in the database and on Envoy; the doctor looks next\n", head)
	return nil
}
