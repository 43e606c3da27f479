package status_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// server is an xDS server with Envoys that a test makes.
type server struct {
	id, started string
	changed     chan struct{}

	mu     sync.Mutex
	pages  *status.Pages
	number int64
	stop   func()
}

func startServer(t *testing.T, s *natstest.Server, id, started string) *server {
	nc, _ := s.Connect()
	x := &server{id: id, started: started, changed: make(chan struct{}, 1), pages: status.NewPages(id, started)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- status.ReportXds(ctx, nc, x.changed, x) }()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(x.stop)
	return x
}

func (x *server) Look(time.Time) (status.News, time.Duration) { return status.Urgent, 0 }

func (x *server) Say(time.Time) ([]status.Message, status.XdsStatus, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m, err := x.pages.Say()
	x.number++
	return m, status.XdsStatus{ID: x.id, StartedAt: x.started, Number: x.number, Pages: x.pages.Digest()}, err
}

func (x *server) Again(calls int) []status.Message {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.pages.Again(calls)
}

// put connects Envoys, and take takes them away.
func (x *server) put(from, to int) {
	x.mu.Lock()
	for i := from; i < to; i++ {
		p := proxy(i, 0)
		p.Version, p.ConnectedAt, p.Since = "1.40.0", "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z"
		x.pages.Put(fmt.Sprint(i), p)
	}
	x.mu.Unlock()
	x.changed <- struct{}{}
}

// reader follows all servers, as an api does.
type reader struct {
	mu    sync.Mutex
	views map[string]*status.View
	lost  map[string]bool // page subjects' numbers that are not taken
}

func startReader(t *testing.T, s *natstest.Server) *reader {
	nc, js := s.Connect()
	r := &reader{views: map[string]*status.View{}, lost: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- status.WatchXds(ctx, nc, js, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *reader) view(id string) *status.View {
	if r.views[id] == nil {
		r.views[id] = status.NewView()
	}
	return r.views[id]
}

func (r *reader) Report(s status.XdsStatus, fresh bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Stopping {
		delete(r.views, s.ID)
		return false
	}
	_, ok := r.view(s.ID).Report(s, fresh)
	return ok && !r.view(s.ID).Whole()
}

func (r *reader) Page(p status.XdsPage, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !fresh || !r.lost[p.ID] {
		r.view(p.ID).Page(p, fresh)
	}
}

func (r *reader) Pages(id string, there map[int32]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view(id).Prune(there)
}

// has says how many Envoys of each server it knows, of those that are known in full.
func (r *reader) has() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for id, v := range r.views {
		n := 0
		for range v.Proxies {
			n++
		}
		if v.Whole() {
			out = append(out, fmt.Sprint(id, " ", n))
		}
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

func (r *reader) wants(t *testing.T, within time.Duration, want string) {
	t.Helper()
	for end := time.Now().Add(within); r.has() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it has %s, want %s", r.has(), want)
		}
	}
}

// TestWire: two servers with thousands of Envoys, over a real NATS whose messages are no larger than a megabyte: who is
// there, who comes later, who misses what is said, and who was there before NATS was restarted has all of them; the
// last report of a server that has stopped, and its pages, are what it finds when it starts.
func TestWire(t *testing.T) {
	s := natstest.Start(t)
	early := startReader(t, s)
	a, b := startServer(t, s, "a", "1"), startServer(t, s, "b", "1")
	early.wants(t, 10*time.Second, "[a 0 b 0]")
	a.put(0, 5000)
	b.put(0, 10)
	early.wants(t, 10*time.Second, "[a 5000 b 10]")
	late := startReader(t, s)
	late.wants(t, 3*time.Second, "[a 5000 b 10]")

	late.mu.Lock()
	late.lost["a"] = true
	late.mu.Unlock()
	a.put(5000, 5001)
	late.wants(t, 3*time.Second, "[a 5001 b 10]") // it has read what NATS keeps
	late.mu.Lock()
	late.lost["a"] = false
	late.mu.Unlock()

	s.Stop()
	s.Start()
	latest := startReader(t, s)
	latest.wants(t, 30*time.Second, "[a 5001 b 10]")
	late.wants(t, 10*time.Second, "[a 5001 b 10]")

	a.stop()
	late.wants(t, 3*time.Second, "[b 10]")
	_, js := s.Connect()
	last, ok := status.LastXds(t.Context(), js, "a")
	n := 0
	if ok {
		for range last.Proxies {
			n++
		}
	}
	if n != 5001 || !last.Head.Stopping {
		t.Errorf("it finds %d of its Envoys (%v)", n, ok)
	}
	again := startServer(t, s, "a", "2")
	again.put(0, 3)
	early.wants(t, 5*time.Second, "[a 3 b 10]")
}

// BenchmarkChange is what a change of one Envoy costs, its page and a report made and taken, however many there are;
// and a report with nothing else.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{10, 1000, 5000} {
		for _, moves := range []bool{false, true} {
			b.Run(fmt.Sprintf("envoys=%d/moves=%v", n, moves), func(b *testing.B) {
				pages, v := status.NewPages("x", "1"), status.NewView()
				for i := range n {
					pages.Put(fmt.Sprint(i), proxy(i, 0))
				}
				size := 0
				say := func(number int) {
					messages, err := pages.Say()
					if err != nil {
						b.Fatal(err)
					}
					size = 0
					for _, m := range messages {
						var p status.XdsPage
						if err := json.Unmarshal(m.Data, &p); err != nil {
							b.Fatal(err)
						}
						v.Page(p, true)
						size += len(m.Data)
					}
					raw, err := json.Marshal(status.XdsStatus{
						ID: "x", StartedAt: "1", Number: int64(number), Pages: pages.Digest(),
						Live: map[string]int64{"g0": int64(number)}, Connected: map[string]int32{"g0": int32(n)},
					})
					var s status.XdsStatus
					if err == nil {
						err = json.Unmarshal(raw, &s)
					}
					if _, ok := v.Report(s, true); err != nil || !ok || !v.Whole() {
						b.Fatal(err, ok, v.Whole())
					}
					size += len(raw)
				}
				say(1)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if moves {
						pages.Put(fmt.Sprint(i%n), proxy(i%n, 1+i/n%2))
					}
					say(i + 2)
				}
				b.ReportMetric(float64(size), "bytes/report")
			})
		}
	}
}
