// Package load is writes and requests that go on while something is done to a system, and the look afterwards for what
// was lost.
package load

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// Writer writes pairs of routes, each pair in one transaction with one mark, so that a half would show. Or it makes and
// deletes many.
type Writer struct {
	n int
	// Ballast is how many bytes each route has that say nothing.
	Ballast int
	// Single has it write one route, not a pair: NATS takes that otherwise than several objects.
	Single bool
	// Many is how many routes it makes by one apply, and deletes by the next; 0 for those that it only changes.
	Many int
	// Pause is how long it rests after a write that was acknowledged.
	Pause time.Duration
	// mu is held during a write, so that nobody takes a copy of what is known in the middle of it.
	mu   sync.Mutex
	next int
	last int // the last mark that was acknowledged
	// maybe are marks after it whose outcome is not known.
	maybe []int
	// refused is what was said of a mark that is known not to be stored.
	refused map[int]string
	// old is the same as of the backup.
	old struct {
		last  int
		maybe []int
	}
}

// Writers makes some.
func Writers(n int) []*Writer {
	out := make([]*Writer, n)
	for i := range out {
		out[i] = &Writer{n: i}
	}
	return out
}

// names are those of the writer's routes.
func (w *Writer) names() (out []string) {
	for i := range w.Many {
		out = append(out, fmt.Sprintf("w%d-%d", w.n, i))
	}
	if w.Many > 0 {
		return out
	}
	out = []string{fmt.Sprintf("w%da", w.n)}
	if !w.Single {
		out = append(out, fmt.Sprintf("w%db", w.n))
	}
	return out
}

// none says of a mark that its document has no routes: one that makes many deletes them by every second.
func (w *Writer) none(mark int) bool { return w.Many > 0 && mark%2 == 0 }

func (w *Writer) document(mark int) map[string]any {
	ballast := make([]byte, w.Ballast/2)
	_, _ = rand.Read(ballast) // never fails
	body := strings.TrimSpace(fmt.Sprint(mark, " ", hex.EncodeToString(ballast)))
	out := []any{}
	for _, name := range w.names() {
		if w.none(mark) {
			break
		}
		out = append(out, map[string]any{"kind": "Route", "name": name, "spec": map[string]any{
			"hosts": []string{name + ".example.com"}, "direct_response": map[string]any{"status": 200, "body": body},
		}})
	}
	if w.Many > 0 {
		return map[string]any{"owner": fmt.Sprintf("w%d", w.n), "prune": true, "allow_empty": true, "resources": out}
	}
	return map[string]any{"resources": out}
}

// Run writes until the context ends, and counts what was acknowledged.
func (w *Writer) Run(ctx context.Context, s *harness.System, acked *atomic.Int64) {
	for ctx.Err() == nil {
		pause := 20 * time.Millisecond
		if w.write(ctx, s) {
			acked.Add(1)
			if pause = w.Pause; pause == 0 {
				continue
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (w *Writer) write(ctx context.Context, s *harness.System) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	status, body, err := s.Call(ctx, http.MethodPost, s.API+"/v1/apply", w.document(w.next))
	switch {
	case err == nil && status == 200:
		w.last, w.maybe = w.next, nil
		return true
	case err == nil && status == 503 && strings.Contains(string(body), "nothing has been changed"):
		// which is compared with what is there
		if w.refused == nil {
			w.refused = map[int]string{}
		}
		w.refused[w.next] = string(body)
	default:
		w.maybe = append(w.maybe, w.next)
	}
	return false
}

// Remember keeps what is known of the writer's writes, and [Writer.GoBack] goes back to it: what came after a backup
// that was restored is gone. Nothing is written meanwhile, the api is down.
func (w *Writer) Remember() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.old.last, w.old.maybe = w.last, slices.Clone(w.maybe)
}

// GoBack goes back to what [Writer.Remember] kept.
func (w *Writer) GoBack() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.maybe = w.old.last, slices.Clone(w.old.maybe)
}

// Prepare makes the route that [Steady] asks for.
func Prepare(ctx context.Context, s *harness.System) error {
	status, body, err := s.Call(ctx, http.MethodPut, s.API+"/v1/routes/steady?wait=live",
		`{"spec":{"hosts":["steady.example.com"],"direct_response":{"status":200,"body":"steady"}}}`)
	if err == nil && status != 201 {
		err = errors.New("not created")
	}
	if err != nil {
		return fmt.Errorf("first route: %d %s %w", status, body, err)
	}
	return nil
}

// Steady asks Envoy for the same thing until the context ends.
func Steady(ctx context.Context, addr string, served, failed *atomic.Int64) {
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
