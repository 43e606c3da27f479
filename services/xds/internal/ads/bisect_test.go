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

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// policies is a filter config with these policies, by name; its content says each, or that it is closed.
func policies(of map[string]string) *translate.Resource {
	var build func(closed map[string]bool) *translate.Resource
	build = func(closed map[string]bool) *translate.Resource {
		var said []string
		parts := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(of)) {
			if closed[name] {
				said = append(said, name+"=closed")
				continue
			}
			said = append(said, name+"="+of[name])
			parts[name] = "digest of " + of[name]
		}
		r := res(filterConfig, "auth", strings.Join(said, " "))
		r.Parts, r.Without = parts, build
		return r
	}
	return build(nil)
}

// manyPolicies are policies that are good, but for some.
func manyPolicies(n int, bad ...int) map[string]string {
	of := map[string]string{}
	for i := range n {
		of[name("p", i)] = "good"
	}
	for _, i := range bad {
		of[name("p", i)] = "bad"
	}
	return of
}

// closedIn are the policies that an Envoy has closed.
func closedIn(e *envoy) []string {
	var out []string
	for said := range strings.FieldsSeq(e.texts(filterConfig)["auth"]) {
		if name, closed := strings.CutSuffix(said, "=closed"); closed {
			out = append(out, name)
		}
	}
	return out
}

// TestOnePolicyAtFault: where Envoy refuses a filter config, the policies at fault are closed and reported, and no
// other; the others change, a new route that needs the filter config goes out, and all comes right when the policy is
// corrected.
func TestOnePolicyAtFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, []*translate.Resource{policies(manyPolicies(40)), res(listener, "http", "1")})
		e := connect(t, g, "one", "auth")
		e.settle()
		live := func(want int64) {
			t.Helper()
			if got := g.Live(); got != want {
				t.Errorf("live %d, want %d", got, want)
			}
		}
		refused := func(want ...string) {
			t.Helper()
			var got []string
			for _, r := range g.Rejections() {
				if got = append(got, r.Closed...); r.Reason == "" || len(r.Closed) == 0 {
					t.Errorf("refusal %+v", r)
				}
			}
			if !slices.Equal(got, want) || !slices.Equal(closedIn(e), want) {
				t.Errorf("refused %q, closed %q, want %q; it was sent:\n%s", got, closedIn(e), want, strings.Join(e.log, "\n"))
			}
		}
		refused()

		of := manyPolicies(40, 7)
		apply(g, 2, []*translate.Resource{policies(of)})
		if refused(); g.Live() != 1 {
			t.Error("live before an Envoy has said anything")
		}
		e.log = nil
		e.settle()
		refused("p07")
		live(2)
		if len(e.log) != 2 {
			t.Errorf("one policy at fault takes %q", e.log)
		}

		// Another policy changes: at once, and the first stays closed.
		e.log = nil
		of["p09"] = "revoked"
		apply(g, 3, []*translate.Resource{policies(of)})
		e.settle()
		refused("p07")
		live(3)
		if len(e.log) != 1 || !strings.Contains(e.texts(filterConfig)["auth"], "p09=revoked") {
			t.Errorf("a change beside it takes %q", e.log)
		}

		// A route that needs the filter config is not held back.
		needy := res(scope, "r", "1")
		needy.Needs = []translate.Key{{Type: filterConfig, Name: "auth"}}
		apply(g, 4, []*translate.Resource{needy})
		e.settle()
		e.want(scope, map[string]string{"r": "1"})
		live(4)

		// A second one, in one change with a revocation: the revocation holds at once, if by the policy's being closed.
		of["p11"], of["p12"] = "bad", "revoked"
		apply(g, 5, []*translate.Resource{policies(of)})
		e.answer() // refuses it
		e.answer()
		if !slices.Equal(closedIn(e), []string{"p07", "p11", "p12"}) {
			t.Errorf("closed at first: %q", closedIn(e))
		}
		if live(4); len(g.Rejections()) != 0 {
			t.Error("something is reported before it is judged")
		}
		e.settle()
		refused("p07", "p11")
		live(5)

		// An Envoy that joins later, and one that comes back.
		late := connect(t, g, "late", "auth")
		late.settle()
		if !slices.Equal(closedIn(late), []string{"p07", "p11"}) {
			t.Errorf("an Envoy that joins has closed %q", closedIn(late))
		}
		late.hangUp()
		e.hangUp()
		e.log = nil
		e.dial(g)
		e.settle()
		refused("p07", "p11")
		live(5)

		// Another life of the server remembers.
		snapshot := g.Snapshot()
		e.hangUp()
		g = newGateway()
		apply(g, 5, []*translate.Resource{policies(of), res(listener, "http", "1"), needy})
		g.Restore(snapshot, time.Now())
		e.log = nil
		e.dial(g)
		e.settle()
		refused("p07", "p11")
		live(5)
		if slices.ContainsFunc(e.log, func(s string) bool { return strings.HasPrefix(s, "TypedExtensionConfig auth") }) {
			t.Errorf("after a restart it was sent %q", e.log)
		}

		// One is corrected, the other one's route is gone.
		of["p07"] = "corrected"
		delete(of, "p11")
		apply(g, 6, []*translate.Resource{policies(of)})
		e.settle()
		refused()
		live(6)
		if got := e.texts(filterConfig)["auth"] + "<"; got != policies(of).Version {
			t.Errorf("it has %q in the end", got)
		}
	})
}

// TestNoPolicyAtFault: where everything is refused, or by one Envoy of two, no policy is blamed: what is not good is
// held back as ever, and the other Envoy goes on.
func TestNoPolicyAtFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, []*translate.Resource{policies(manyPolicies(3)), res(listener, "http", "1")})
		well, broken := connect(t, g, "well", "auth"), connect(t, g, "broken", "auth")
		well.settle()
		broken.settle()
		broken.refusesAll = true
		of := manyPolicies(3)
		of["p01"] = "new"
		apply(g, 2, []*translate.Resource{policies(of)})
		for range 10 {
			broken.answer()
			broken.answer()
			well.answer()
			well.answer()
		}
		if got := closedIn(well); len(got) > 0 || !strings.Contains(well.texts(filterConfig)["auth"], "p01=new") {
			t.Errorf("the Envoy that works has %q", well.texts(filterConfig))
		}
		if n := len(broken.log); n > 12 {
			t.Errorf("the other one was sent %d responses:\n%s", n, strings.Join(broken.log, "\n"))
		}
		for _, r := range g.Rejections() {
			if len(r.Closed) > 0 {
				t.Errorf("policies %q are blamed", r.Closed)
			}
		}
		broken.refusesAll = false
		time.Sleep(time.Minute)
		well.settle()
		broken.settle()
		if broken.texts(filterConfig)["auth"] != well.texts(filterConfig)["auth"] || len(g.Rejections()) > 0 {
			t.Errorf("when its fault is gone it has %q", broken.texts(filterConfig))
		}
	})
}

// TestPoliciesAtRandom: policies become bad and good at random under Envoys that answer in any order. In the end, and
// whenever all have answered, exactly the bad ones are closed, everywhere.
func TestPoliciesAtRandom(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 9))
				g := newGateway()
				of := manyPolicies(12)
				for range r.IntN(3) { // bad from the beginning
					of[name("p", r.IntN(12))] = fmt.Sprint("bad", r.IntN(9))
				}
				apply(g, 1, []*translate.Resource{policies(of), res(listener, "http", "1")})
				envoys := []*envoy{connect(t, g, "a", "auth"), connect(t, g, "b", "auth"), connect(t, g, "c", "auth")}
				check := func() {
					t.Helper()
					var bad []string
					for _, n := range slices.Sorted(maps.Keys(of)) {
						if strings.Contains(of[n], "bad") {
							bad = append(bad, n)
						}
					}
					for settled := false; !settled; {
						settled = true
						for _, e := range envoys {
							settled = !e.answer() && settled
						}
					}
					var reported []string
					for _, x := range g.Rejections() {
						reported = append(reported, x.Closed...)
					}
					if !slices.Equal(reported, bad) {
						t.Errorf("reported %q, want %q", reported, bad)
					}
					for _, e := range envoys {
						if !slices.Equal(closedIn(e), bad) {
							t.Errorf("%s has closed %q, want %q:\n%s", e.name, closedIn(e), bad, strings.Join(e.log, "\n"))
						}
						e.log = nil
					}
				}
				check()
				revision := int64(1)
				for range 40 {
					for range 1 + r.IntN(3) {
						content := fmt.Sprint("good", r.IntN(9))
						if r.IntN(3) == 0 {
							content = fmt.Sprint("bad", r.IntN(9))
						}
						if of[name("p", r.IntN(12))] = content; r.IntN(8) == 0 {
							delete(of, name("p", r.IntN(12)))
						}
					}
					revision++
					apply(g, revision, []*translate.Resource{policies(of)})
					for range r.IntN(6) {
						envoys[r.IntN(3)].answer()
					}
					if i := r.IntN(3); r.IntN(6) == 0 {
						envoys[i].hangUp()
						envoys[i].dial(g)
					}
					if r.IntN(4) == 0 {
						check()
						if got := g.Live(); got != revision {
							t.Errorf("live %d, want %d", got, revision)
						}
					}
				}
				check()
			})
		})
	}
}
