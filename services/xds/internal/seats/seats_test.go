package seats_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

// envoy is one that holds on to what it was told last.
type envoy struct {
	seats.Proxy
	seated bool
}

func (e *envoy) Seat(has bool, since time.Time) bool {
	changed := e.seated != has || !e.Since.Equal(since)
	e.seated, e.Since = has, since
	return changed
}

// server is an xDS server with its Envoys.
type server struct {
	id    string
	seats *seats.Seats
	has   map[string]*envoy
}

// cluster are the xDS servers of a test.
type cluster struct {
	t       *testing.T
	limit   int
	servers map[string]*server
	ports   int
}

func newCluster(t *testing.T, limit int, ids ...string) *cluster {
	w := &cluster{t: t, limit: limit, servers: map[string]*server{}}
	for _, id := range ids {
		w.start(id)
	}
	return w
}

func (w *cluster) start(id string) *server {
	s := &server{id, seats.New(id), map[string]*envoy{}}
	s.seats.Configure(map[string]string{"default": "main", "edge": "main"}, map[string]int{"main": w.limit})
	w.servers[id] = s
	return s
}

// join connects an Envoy; a second passes, so that the order is clear.
func (w *cluster) join(id, name string) *envoy {
	s := w.servers[id]
	w.ports++
	e := &envoy{Proxy: seats.Proxy{
		Gateway: "default", ID: name, Address: fmt.Sprintf("192.0.2.1:%d", w.ports),
		Connected: time.Now(),
	}}
	s.has[name] = e
	s.seats.Join(e.Proxy, e)
	w.exchange()
	time.Sleep(time.Second)
	return e
}

func (w *cluster) leave(id, name string) {
	s := w.servers[id]
	s.seats.Leave(s.has[name])
	delete(s.has, name)
	w.exchange()
}

func (s *server) report() []seats.Proxy {
	var out []seats.Proxy
	for _, e := range s.has {
		out = append(out, e.Proxy)
	}
	return out
}

// exchange has every server hear every other's report, as often as seniorities change by that.
func (w *cluster) exchange() {
	for range 3 {
		for _, from := range w.servers {
			for _, to := range w.servers {
				to.seats.Hear(from.id, from.report(), false)
			}
		}
	}
}

// seated lists who has a seat, by name.
func (w *cluster) seated() string {
	var out []string
	for _, s := range w.servers {
		for name, e := range s.has {
			if e.seated {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w *cluster) want(who string) {
	w.t.Helper()
	if got := w.seated(); got != who {
		w.t.Errorf("seats of %q, want %q", got, who)
	}
}

// after lets time pass with reports every five seconds, but those of silent servers.
func (w *cluster) after(d time.Duration, silent ...string) {
	for t0 := time.Now(); time.Since(t0) < d; {
		time.Sleep(5 * time.Second)
		for _, to := range w.servers {
			for _, from := range w.servers {
				if !slices.Contains(silent, from.id) {
					to.seats.Hear(from.id, from.report(), false)
				}
			}
			to.seats.Age(false)
		}
	}
}

func TestServersAssignTheSameSeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCluster(t, 2, "a", "b")
		w.join("a", "1")
		w.join("b", "2")
		w.join("a", "3")
		w.join("b", "4")
		w.want("1 2")
		w.leave("a", "1")
		w.want("2 3")
		w.join("b", "5")
		w.join("b", "1") // back within the time of grace
		w.want("1 2")
		w.leave("b", "1")
		w.after(seats.Grace + 5*time.Second)
		w.join("a", "1") // too late
		w.want("2 3")
	})
}

func TestRestartedServerKeepsSeniority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCluster(t, 2, "a", "b")
		w.join("a", "1")
		w.join("a", "2")
		w.join("b", "3")
		last := w.servers["a"].report()
		w.start("a")
		w.exchange()
		w.join("a", "2") // before the last report has been read
		w.servers["a"].seats.Remember(last)
		w.exchange()
		w.join("a", "1")
		w.want("1 2")

		// With nobody to remember, by what the Envoys hold.
		alone := newCluster(t, 1, "c")
		x := alone.join("c", "x")
		alone.servers["c"].seats.CameWithoutSeat(x)
		alone.join("c", "y")
		alone.want("y")
	})
}

// TestMovedEnvoyCountsOnce: a server dies without a word, and its Envoys go to the other one, which still
// has its last report.
func TestMovedEnvoyCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCluster(t, 2, "a", "b")
		w.join("a", "1")
		w.join("a", "2")
		w.join("b", "3")
		w.want("1 2")
		dead := w.servers["a"]
		dead.has = maps.Clone(dead.has)
		delete(w.servers, "a")
		w.join("b", "2")
		w.join("b", "1")
		w.want("1 2")
		w.after(seats.Silence + 10*time.Second)
		w.want("1 2")
		w.leave("b", "2")
		w.want("1 3")
	})
}

// TestNobodyIsHeard: what was heard last counts while NATS is away; a server that is silent while others
// are heard is gone.
func TestNobodyIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCluster(t, 1, "a", "b")
		w.join("a", "1")
		w.join("b", "2")
		b := w.servers["b"].seats
		for range 100 {
			time.Sleep(5 * time.Second)
			b.Age(true)
		}
		w.want("1")
		b.Age(false)
		w.want("1")
		time.Sleep(seats.Silence + time.Second)
		if !b.Age(false) {
			t.Error("nothing changed")
		}
		w.want("1 2") // each knows of one only
	})
}

// TestRandom: whatever comes and goes, once all servers have heard of it no seat is given twice or left
// empty, and those who were there first have them.
func TestRandom(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			w := newCluster(t, 1+r.IntN(4), "a", "b", "c")
			ids := []string{"a", "b", "c"}
			at := map[string]string{}
			first := map[string]time.Time{}
			for range 60 {
				name := fmt.Sprint(r.IntN(8))
				if id, connected := at[name]; connected {
					w.leave(id, name)
					delete(at, name)
				}
				if r.IntN(3) > 0 {
					at[name] = ids[r.IntN(3)]
					e := w.join(at[name], name)
					if first[name].IsZero() || !e.Since.Equal(first[name]) {
						first[name] = e.Since
					}
				}
				if r.IntN(5) == 0 {
					w.after(time.Duration(r.IntN(60)) * time.Second)
				}
			}
			w.exchange()
			names := slices.SortedFunc(maps.Keys(at), func(a, b string) int { return first[a].Compare(first[b]) })
			names = names[:min(len(names), w.limit)]
			slices.Sort(names)
			w.want(strings.Join(names, " "))
		})
	}
}
