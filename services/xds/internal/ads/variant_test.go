package ads_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
)

// TestVariantPerRoute: an Envoy gets the filter config that does not read what routes set only when it has no route
// that sets something, has none on its way, and none can come to it in place of a rejected one.
func TestVariantPerRoute(t *testing.T) {
	wide := func() *translate.Resource {
		r := res(filterConfig, "auth", "wide")
		r.PerRoute = res(filterConfig, "auth", "per route")
		return r
	}
	saying := func(text string) *translate.Resource {
		r := res(scope, "r", text)
		r.Policies = []string{"none", "staff"}
		r.Needs = []translate.Key{{Type: translate.TypeExtension, Name: "marchproxy.auth"}}
		return r
	}
	has := func(e *envoy, config, route string) {
		t.Helper()
		e.want(filterConfig, map[string]string{"auth": config})
		e.want(scope, map[string]string{"r": route})
	}
	// silent is what the configuration becomes: the route says nothing any more.
	silent := func(text string) []*translate.Resource {
		return []*translate.Resource{wide(), res(scope, "r", text)}
	}
	loud := []*translate.Resource{res(listener, "http", "1"), res(filterConfig, "auth", "strict"), saying("says 1")}
	begin := func(t *testing.T, g *ads.Gateway, name string) *envoy {
		e := connect(t, g, name, "auth")
		e.settle()
		return e
	}
	t.Run("comes and goes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			apply(g, 1, append(silent("1"), res(listener, "http", "1")))
			e := begin(t, g, "fresh")
			for k := range int64(5) {
				apply(g, 2+2*k, []*translate.Resource{res(filterConfig, "auth", "strict"), saying(fmt.Sprint("says ", k))})
				e.settle()
				has(e, "strict", fmt.Sprint("says ", k))
				apply(g, 3+2*k, silent(fmt.Sprint("silent ", k)))
				e.settle()
				has(e, "wide", fmt.Sprint("silent ", k))
				if got := g.Live(); got != 3+2*k {
					t.Errorf("live %d, want %d", got, 3+2*k)
				}
			}
		})
	})
	for _, again := range []bool{false, true} { // whether the server has begun anew, too
		t.Run(fmt.Sprintf("comes back, another life of the server %v", again), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				apply(g, 1, loud)
				e := begin(t, g, "late")
				has(e, "strict", "says 1")
				e.hangUp()
				if again {
					g = newGateway()
					apply(g, 2, append(silent("2"), res(listener, "http", "1")))
				} else {
					apply(g, 2, silent("2"))
				}
				e.dial(g)
				e.settle()
				has(e, "wide", "2")
			})
		})
	}
	open := func() *translate.Resource {
		r := res(filterConfig, "auth", "open")
		r.AfterRoutes = true
		return r
	}
	for when, c := range map[string]struct {
		config        *translate.Resource
		before, after string
	}{
		"comes back, and its new routes wait for endpoints": {wide(), "per route", "wide"},
		"the last policy goes while it is away":             {open(), "strict", "open"},
	} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				apply(g, 1, loud)
				e := begin(t, g, "late")
				e.hangUp()
				apply(g, 2, []*translate.Resource{c.config, res(scope, "r", "2", "c"), res(cluster, "c", "2")})
				e.dial(g)
				e.settle()
				has(e, c.before, "says 1")
				apply(g, 3, []*translate.Resource{res(endpoint, "c", "3")})
				e.settle()
				has(e, c.after, "2")
				if got := g.Live(); got != 3 {
					t.Errorf("live %d, want 3", got)
				}
			})
		})
	}
	for name, policy := range map[string]string{"marchproxy.license": "staff", "auth": "another engine's"} {
		t.Run(fmt.Sprintf("%s goes, and a route says %s", name, policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				route := res(scope, "r", "1")
				route.Policies = []string{policy}
				apply(g, 1, []*translate.Resource{res(listener, "http", "1"), res(filterConfig, name, "strict"), route})
				e := connect(t, g, "one", name)
				e.settle()
				gone := res(filterConfig, name, "open")
				gone.AfterRoutes = true
				apply(g, 2, []*translate.Resource{gone})
				e.settle()
				e.want(filterConfig, map[string]string{name: "open"})
				e.want(scope, map[string]string{"r": "1"})
			})
		})
	}
	t.Run("the last policy goes, and a table that is not known stays", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			apply(g, 4, append(slices.Clone(loud), res(scope, "other", "4")))
			e := begin(t, g, "late")
			e.hangUp()
			g = newGateway() // which does not know what the Envoy has, and it takes nothing else
			apply(g, 5, []*translate.Resource{
				res(listener, "http", "1"), open(), res(scope, "r", "bad"),
				res(scope, "other", "5"),
			})
			e.dial(g)
			e.settle()
			e.want(filterConfig, map[string]string{"auth": "strict"})
			e.want(scope, map[string]string{"r": "says 1", "other": "5"})
			if got := g.Live(); got != 5 {
				t.Errorf("live %d, want 5: nobody waits for what cannot come", got)
			}
		})
	})
	t.Run("refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			apply(g, 1, loud)
			e := begin(t, g, "first")
			apply(g, 2, silent("bad"))
			e.settle()
			has(e, "per route", "says 1")
			joins := begin(t, g, "joins")
			has(joins, "per route", "says 1")
			apply(g, 3, silent("3"))
			e.settle()
			joins.settle()
			has(e, "wide", "3")
			has(joins, "wide", "3")
			if got := g.Live(); got != 3 {
				t.Errorf("live %d, want 3", got)
			}
		})
	})
	t.Run("refused after another life of the server", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			apply(g, 1, loud)
			e := begin(t, g, "first")
			e.hangUp()
			g = newGateway() // which does not know what the Envoy has
			apply(g, 2, append(silent("bad"), res(listener, "http", "1")))
			e.dial(g)
			e.settle()
			has(e, "per route", "says 1")
			apply(g, 3, silent("3"))
			e.settle()
			has(e, "wide", "3")
		})
	})
}
