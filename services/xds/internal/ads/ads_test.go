package ads_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

// TestOrder: a route is sent when its clusters, with their endpoints, have been acknowledged; one that needs
// nothing, at once.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, append(service("web", "1"), res(listener, "http", "1"), res(scope, "http/needs", "1", "web"),
			res(scope, "http/free", "1")))
		e := connect(t, g, "e")
		e.sent("Cluster web", "Listener http", "ScopedRouteConfiguration http/free")
		if got := g.Proxies()[0].Applied; got != 0 {
			t.Errorf("applied %d before anything was acknowledged", got)
		}
		for e.answer() && e.has[endpoint]["web"] == nil {
			if slices.Contains(e.log, "ScopedRouteConfiguration http/needs") {
				t.Error("the route came before the endpoints were acknowledged")
			}
		}
		e.settle()
		e.want(scope, map[string]string{"http/needs": "1", "http/free": "1"})
		if got := g.Proxies()[0].Applied; got != 1 {
			t.Errorf("applied %d, want 1", got)
		}
	})
}

// TestReplace: a route moves from one service to another, which is deleted: first the new cluster, then the route,
// and the old cluster goes a while after the route has left it, for the requests in flight.
func TestReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, append(service("old", "1"), res(listener, "http", "1"), res(scope, "http/a", "1", "old")))
		e := connect(t, g, "e")
		e.settle()
		e.log = nil
		apply(g, 2, append(service("new", "2"), res(scope, "http/a", "2", "new")), key(cluster, "old"), key(endpoint, "old"))
		e.sent("Cluster new")
		e.answer()
		e.sent("ClusterLoadAssignment new")
		e.answer()
		e.sent("ScopedRouteConfiguration http/a")
		time.Sleep(time.Minute) // the bubble's: however long the Envoy takes to answer, the old cluster stays
		e.sent()
		e.answer()
		if got := g.Live(); got != 2 {
			t.Errorf("live %d, want 2: nobody sees a cluster that lingers", got)
		}
		time.Sleep(5*time.Second - time.Millisecond)
		e.sent()
		time.Sleep(20 * time.Millisecond)
		e.sent("Cluster -old")
		e.settle()
		e.want(cluster, map[string]string{"new": "2"})
	})
}

// TestContainment: of many new routes one is bad. The others are live, the bad one is known with Envoy's text, its
// last good version stays, and correcting it clears that.
func TestContainment(t *testing.T) {
	for kind, refusal := range map[string]func(string) string{
		"text without a name": func(string) string { return "malformed" },
		"text with its name":  func(bad string) string { return "Error in '" + bad + "': malformed" },
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				apply(g, 1, []*translate.Resource{res(listener, "http", "1"), res(scope, name("r", 5), "1")})
				e := connect(t, g, "e")
				e.refusal = refusal
				e.settle()
				e.log = nil
				var all []*translate.Resource
				want := map[string]string{}
				for i := range 64 {
					all = append(all, res(scope, name("r", i), "2"))
					want[name("r", i)] = "2"
				}
				all[5], want[name("r", 5)] = res(scope, name("r", 5), "bad"), "1"
				apply(g, 2, all)
				e.settle()
				e.want(scope, want)
				if len(e.log) > 14 {
					t.Errorf("%d responses for 64 resources:\n%s", len(e.log), strings.Join(e.log, "\n"))
				}
				r := g.Rejections()
				if len(r) != 1 || r[0].Resource.Name != name("r", 5) || !strings.Contains(r[0].Reason, "malformed") ||
					r[0].Revision != 2 {
					t.Fatalf("refusals %+v", r)
				}
				if got := g.Live(); got != 2 {
					t.Errorf("live %d, want 2: the last good version is served in the bad one's place", got)
				}
				apply(g, 3, []*translate.Resource{res(scope, name("r", 5), "3")})
				e.settle()
				want[name("r", 5)] = "3"
				e.want(scope, want)
				if r := g.Rejections(); len(r) != 0 {
					t.Errorf("still refused: %+v", r)
				}
			})
		})
	}
}

// TestRefusedTravelsAlone: who joins after a refusal gets everything else without it, and a new try is alone.
func TestRefusedTravelsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, []*translate.Resource{
			res(listener, "http", "1"), res(scope, "a", "1"), res(scope, "b", "bad"),
			res(scope, "c", "1"),
		})
		first := connect(t, g, "first")
		first.settle()
		second := connect(t, g, "second")
		second.settle()
		for _, line := range second.log {
			if strings.Contains(line, " b") {
				t.Errorf("the second Envoy was sent %q", line)
			}
		}
		second.want(scope, map[string]string{"a": "1", "c": "1"})
		first.log, second.log = nil, nil
		apply(g, 2, []*translate.Resource{res(scope, "a", "2"), res(scope, "c", "2")})
		first.settle()
		second.settle()
		first.sent("ScopedRouteConfiguration a c")
		second.sent("ScopedRouteConfiguration a c")
		time.Sleep(16 * time.Second)
		first.read()
		second.read()
		if tries := strings.Join(append(first.log, second.log...), "|"); tries != "ScopedRouteConfiguration b" {
			t.Errorf("after a pause the refused one is tried again, alone, on one Envoy; sent: %s", tries)
		}
	})
}

// TestRefusedCluster: the routes to a refused cluster are held back and say why; they come when it is corrected.
func TestRefusedCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, append(append(service("good", "1"), res(cluster, "web", "bad"), res(endpoint, "web", "1")),
			res(listener, "http", "1"), res(scope, "a", "1", "web"), res(scope, "b", "1", "good")))
		e := connect(t, g, "e")
		e.settle()
		e.want(scope, map[string]string{"b": "1"})
		var names []string
		for _, r := range g.Rejections() {
			names = append(names, r.Resource.Name)
		}
		if !slices.Equal(names, []string{"a", "web"}) {
			t.Errorf("refusals %v", names)
		}
		apply(g, 2, []*translate.Resource{res(cluster, "web", "2")})
		e.settle()
		e.want(scope, map[string]string{"a": "1", "b": "1"})
		if r := g.Rejections(); len(r) != 0 {
			t.Errorf("still refused: %+v", r)
		}
	})
}

// TestReconnect: an Envoy that says what it has is sent what differs, also by a server that has just started.
func TestReconnect(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			all := append(append(service("web", "1"), service("old", "1")...), res(listener, "http", "1"),
				res(scope, "a", "1", "web"), res(scope, "b", "1", "old"))
			apply(g, 1, all)
			e := connect(t, g, "e")
			e.settle()
			e.hangUp()
			if restarted {
				g = newGateway()
				apply(g, 1, all)
			}
			e.log = nil
			e.dial(g)
			e.settle()
			e.sent("Cluster ", "Listener ", "ScopedRouteConfiguration ")
			if got := g.Live(); got != 1 {
				t.Errorf("live %d, want 1", got)
			}

			e.hangUp()
			if restarted {
				g = newGateway()
			}
			apply(g, 2, append(service("web", "2"), res(listener, "http", "1"), res(scope, "a", "1", "web"),
				res(scope, "c", "2", "web")), key(scope, "b"), key(cluster, "old"), key(endpoint, "old"))
			e.dial(g)
			e.settle()
			e.want(scope, map[string]string{"a": "1", "c": "2"})
			e.want(endpoint, map[string]string{"web": "2", "old": "1"})
			time.Sleep(6 * time.Second)
			e.settle()
			e.want(cluster, map[string]string{"web": "2"})
			for _, line := range e.log {
				if strings.HasPrefix(line, "Listener http") || line == "ScopedRouteConfiguration a" {
					t.Errorf("it was sent again what it had: %q", line)
				}
			}
		})
	}
}

// TestSlow: an Envoy that does not answer holds up itself and the count of what is live, and nobody else; what it
// has missed comes at once.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, []*translate.Resource{res(listener, "http", "1"), res(scope, "a", "1")})
		quick, slow := connect(t, g, "quick"), connect(t, g, "slow")
		quick.settle()
		slow.settle()
		slow.log = nil
		for rev := int64(2); rev < 12; rev++ {
			apply(g, rev, []*translate.Resource{res(scope, "a", name("v", int(rev))), res(scope, name("r", int(rev)), "1")})
			quick.settle()
			if p := g.Proxies(); p[0].ID != "quick" || p[0].Applied != rev || p[1].Applied != 1 {
				t.Fatalf("at revision %d: %+v", rev, p)
			}
			if g.Live() != 1 {
				t.Fatalf("live %d at revision %d", g.Live(), rev)
			}
		}
		slow.read()
		if len(slow.log) != 1 {
			t.Errorf("the slow one was sent %q before it answered", slow.log)
		}
		slow.settle()
		if len(slow.log) != 2 {
			t.Errorf("the slow one was sent %q", slow.log)
		}
		if g.Live() != 11 {
			t.Errorf("live %d, want 11", g.Live())
		}
		if !maps.Equal(slow.texts(scope), quick.texts(scope)) {
			t.Errorf("%v and %v", slow.texts(scope), quick.texts(scope))
		}
	})
}

// TestRandom: whatever changes, whatever is bad, whoever comes, goes, answers late, has no seat, and whenever the
// server is restarted: no Envoy is sent what would cost a request (envoy.put and envoy.remove watch over that), and in
// the end everybody has what there is, with the last good version of what is bad.
func TestRandom(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			w := &configuration{
				rng: rng, seats: seats.New("xds"), filter: "v1", filtered: 1, services: map[string]string{},
				routes: map[string]route{},
			}
			w.start(1, nil)
			envoys := []*envoy{connect(t, w.g, "a", "auth"), connect(t, w.g, "b", "auth"), connect(t, w.g, "c", "auth")}
			for range 60 {
				switch e := envoys[rng.IntN(3)]; rng.IntN(9) {
				case 0, 1, 2:
					w.change()
				case 3:
					time.Sleep(time.Duration(rng.IntN(8000)) * time.Millisecond)
				case 4:
					e.hangUp()
					e.dial(w.g)
				case 5:
					w.limit(rng.IntN(4))
					if rng.IntN(3) == 0 {
						for _, e := range envoys {
							e.hangUp()
						}
						w.start(w.revision, w.g.Snapshot())
						for _, e := range envoys {
							e.dial(w.g)
						}
					}
				default:
					for range rng.IntN(4) {
						e.answer()
					}
				}
			}
			w.limit(0)
			w.correct()
			for range 6 { // lingering clusters and retries take their time
				for _, e := range envoys {
					e.settle()
				}
				time.Sleep(10 * time.Second)
			}
			scopes, clusters := map[string]string{}, map[string]string{}
			for n, r := range w.routes {
				scopes[n] = r.content()
			}
			maps.Copy(clusters, w.services)
			for _, e := range envoys {
				e.want(scope, scopes)
				e.want(cluster, clusters)
				e.want(endpoint, clusters)
				e.want(filterConfig, map[string]string{"auth": w.filter})
			}
			if r := w.g.Rejections(); len(r) > 0 {
				t.Errorf("refused: %+v", r)
			}
			if w.g.Live() != w.revision {
				t.Errorf("live %d, want %d", w.g.Live(), w.revision)
			}
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
			for _, e := range envoys {
				e.hangUp()
			}
		})
		if t.Failed() {
			return
		}
	}
}

type route struct {
	text string
	to   []string
	// needs is the revision of the filter config that the route needs, 0 for none.
	needs int64
}

// content begins with what tells the Envoys of this test what the route needs.
func (r route) content() string {
	if r.needs > 0 {
		return fmt.Sprint(needsFilter, r.needs, " ", r.text)
	}
	return r.text
}

func (r route) resource(name string) *translate.Resource {
	out := res(scope, name, r.content(), r.to...)
	if r.needs > 0 {
		out.Needs = []translate.Key{key(filterConfig, "auth")}
	}
	return out
}

// configuration is one that changes at random, and always makes sense.
type configuration struct {
	rng      *rand.Rand
	g        *ads.Gateway
	seats    *seats.Seats
	revision int64
	services map[string]string
	routes   map[string]route
	// filter is the filter config's content, which begins with the revision that made it after a letter or a word.
	filter   string
	filtered int64
}

// start begins a gateway with what there is, and what the one before has put in quarantine.
func (w *configuration) start(revision int64, quarantine []ads.Quarantined) {
	w.revision = revision
	w.g = ads.NewGateway("default", ads.Options{OnChange: func() {}, Log: zap.NewNop(), Seats: w.seats})
	all := []*translate.Resource{res(listener, "http", "1"), w.filterConfig()}
	for n, text := range w.services {
		all = append(all, service(n, text)...)
	}
	for n, r := range w.routes {
		all = append(all, r.resource(n))
	}
	apply(w.g, revision, all)
	w.g.Restore(quarantine, time.Now())
}

// limit allows so many Envoys, any number where 0.
func (w *configuration) limit(n int) {
	limits := map[string]int{}
	if n > 0 {
		limits["main"] = n
	}
	w.seats.Configure(map[string]string{"default": "main"}, limits)
}

// filterConfig has a variant for Envoys over the limit.
func (w *configuration) filterConfig() *translate.Resource {
	r := res(filterConfig, "auth", w.filter)
	r.OverLimit = res(filterConfig, "auth", w.filter+" over the limit")
	return r
}

func (w *configuration) text() string {
	if w.rng.IntN(6) == 0 {
		return name("bad", int(w.revision))
	}
	return name("v", int(w.revision))
}

// change makes one revision of some changes: services and routes come, change and go, and no route is without its
// services.
func (w *configuration) change() {
	w.revision++
	var up []*translate.Resource
	var gone []translate.Key
	if w.rng.IntN(3) == 0 {
		w.filter, w.filtered = w.text(), w.revision
		up = append(up, w.filterConfig())
	}
	for range 1 + w.rng.IntN(4) {
		n := name("s", w.rng.IntN(5))
		w.services[n] = name("v", int(w.revision))
		up = append(up, service(n, w.services[n])...)
	}
	for range w.rng.IntN(6) {
		n := name("r", w.rng.IntN(8))
		all := slices.Sorted(maps.Keys(w.services))
		r := route{text: w.text(), to: []string{all[w.rng.IntN(len(all))]}}
		if w.rng.IntN(3) == 0 {
			r.needs = w.filtered
		}
		w.routes[n] = r
		up = append(up, r.resource(n))
	}
	for n := range w.routes {
		if w.rng.IntN(6) == 0 {
			delete(w.routes, n)
			gone = append(gone, key(scope, n))
			up = slices.DeleteFunc(up, func(r *translate.Resource) bool { return r.Key == key(scope, n) })
		}
	}
	used := map[string]bool{}
	for _, r := range w.routes {
		used[r.to[0]] = true
	}
	for n := range w.services {
		if !used[n] && w.rng.IntN(2) == 0 {
			delete(w.services, n)
			gone = append(gone, key(cluster, n), key(endpoint, n))
			up = slices.DeleteFunc(up, func(r *translate.Resource) bool { return r.Name == n })
		}
	}
	apply(w.g, w.revision, up, gone...)
}

// correct makes everything good.
func (w *configuration) correct() {
	w.revision++
	var up []*translate.Resource
	for n, r := range w.routes {
		if strings.Contains(r.text, "bad") {
			r.text = "good"
			w.routes[n] = r
			up = append(up, r.resource(n))
		}
	}
	if strings.Contains(w.filter, "bad") {
		w.filter = name("v", int(w.revision))
		up = append(up, w.filterConfig())
	}
	apply(w.g, w.revision, up)
}

// TestSubstitutesKeepTheirNeeds: what is served in the place of something refused is served to an Envoy that
// joins with all that it relies on: what relied on it before, secrets that are gone from the configuration;
// and another life of the server knows of it all.
func TestSubstitutesKeepTheirNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		needing := func(name, text string, clusters ...string) *translate.Resource {
			r := res(scope, name, text, clusters...)
			r.Needs, r.Policies = []translate.Key{{Type: filterConfig, Name: "auth"}}, []string{"policy of " + name + text}
			return r
		}
		secured := res(listener, "http", "1")
		secured.Secrets = []string{"old"}
		first := append(append(service("one", "1"), service("two", "1")...), secured, res(secret, "old",
			"1"), res(filterConfig, "auth", "1"),
			needing("moves", "1", "one"), needing("stays", "1", "two"), res(scope, "free", "1"))
		second := []*translate.Resource{
			res(filterConfig, "auth", "bad"), res(listener, "http", "bad"),
			needing("moves", "2", "two"), needing("new", "2", "two"), res(scope, "free", "2"),
		}
		gone := translate.Delta{Upserts: second, Removes: []translate.Key{
			{Type: cluster, Name: "one"},
			{Type: endpoint, Name: "one"},
			{Type: secret, Name: "old"},
		}}
		served := func(g *ads.Gateway, when string) {
			t.Helper()
			e := connect(t, g, when)
			e.ask(filterConfig, "auth")
			e.ask(secret, "old")
			e.settle()
			e.want(filterConfig, map[string]string{"auth": "1"})
			e.want(listener, map[string]string{"http": "1"})
			e.want(secret, map[string]string{"old": "1"})
			e.want(scope, map[string]string{"moves": "1", "stays": "1", "free": "2"})
			e.want(cluster, map[string]string{"one": "1", "two": "1"})
			if p := g.Policies(); !p["policy of moves1"] || len(p) != 1 {
				t.Errorf("%s: policies %v", when, p)
			}
			if got := g.Live(); got != 2 {
				t.Errorf("%s: live %d, want 2", when, got)
			}
		}
		g := newGateway()
		apply(g, 1, first)
		e := connect(t, g, "first")
		e.ask(filterConfig, "auth")
		e.ask(secret, "old")
		e.settle()
		g.Apply(2, gone)
		e.settle()
		served(g, "joins")
		for _, r := range g.Rejections() {
			if r.GoodUntil != 1 && r.Resource.Name != "new" {
				t.Errorf("%s was good until %d", r.Resource.Name, r.GoodUntil)
			}
		}

		again := newGateway()
		apply(again, 2, append(slices.DeleteFunc(slices.Clone(first), func(r *translate.Resource) bool {
			return slices.Contains(gone.Removes, r.Key)
		}), second...))
		again.Restore(g.Snapshot(), time.Now())
		served(again, "joins after a restart")

		apply(again, 3, []*translate.Resource{res(filterConfig, "auth", "3"), res(listener, "http", "3")})
		late := connect(t, again, "corrected")
		late.ask(filterConfig, "auth")
		late.settle()
		late.want(scope, map[string]string{"moves": "2", "stays": "1", "new": "2", "free": "2"})
		if r := again.Rejections(); len(r) != 0 {
			t.Errorf("still refused: %+v", r)
		}
	})
}
