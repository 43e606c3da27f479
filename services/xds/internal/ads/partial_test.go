package ads_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// part are endpoints of which those of a name are missing.
func part(name, text string) *translate.Resource {
	r := res(endpoint, name, text)
	r.Partial = true
	return r
}

// TestEndpointsOutliveTheServer: an xDS server that has lost everything, and does not know the addresses of a name,
// takes no endpoint away from an Envoy that has them from before, neither with a part nor with a cluster whose
// warming would wait for endpoints; what it knows in full is sent. Nobody waits for what is held back so.
func TestEndpointsOutliveTheServer(t *testing.T) {
	route := []*translate.Resource{res(listener, "http", "1"), res(scope, "http/a", "1", "db")}
	for what, c := range map[string]struct {
		// cluster as the new server has it; first and then are the endpoints, in turn, none where nil.
		cluster     string
		first, then *translate.Resource
		want        string // the endpoints, and the cluster, after first and after then
		later       string
	}{
		"no address for a while, then the same":  {"1", nil, res(endpoint, "db", "1"), "1 1", "1 1"},
		"no address for a while, then another":   {"1", nil, res(endpoint, "db", "2"), "1 1", "2 1"},
		"none at all, then another":              {"1", part("db", ""), res(endpoint, "db", "2"), "1 1", "2 1"},
		"a part, then more of it":                {"1", part("db", "a"), part("db", "a b"), "1 1", "1 1"},
		"a part, then what is no part":           {"1", part("db", "a"), res(endpoint, "db", "c"), "1 1", "c 1"},
		"another cluster, no address, then some": {"2", nil, res(endpoint, "db", "1"), "1 1", "1 2"},
		"another cluster, a part, then all":      {"2", part("db", "a"), res(endpoint, "db", "2"), "1 1", "2 2"},
		"all at once":                            {"2", res(endpoint, "db", "2"), res(endpoint, "db", "3"), "2 2", "3 2"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				apply(g, 1, append(service("db", "1"), route...))
				e := connect(t, g, "e")
				e.settle()
				e.hangUp()
				g = newGateway()
				apply(g, 5, append([]*translate.Resource{res(cluster, "db", c.cluster)}, route...))
				e.dial(g)
				e.settle()
				steps := []*translate.Resource{c.first, c.then}
				for i, want := range []string{c.want, c.later} {
					if steps[i] != nil {
						apply(g, 5, steps[i:i+1])
					}
					e.settle()
					time.Sleep(time.Minute)
					e.settle()
					if got := e.texts(endpoint)["db"] + " " + e.texts(cluster)["db"]; got != want {
						t.Errorf("step %d: has endpoints and cluster %q, want %q", i, got, want)
					}
					e.want(scope, map[string]string{"http/a": "1"})
					if got := g.Live(); got != 5 {
						t.Errorf("step %d: live %d, want 5", i, got)
					}
				}
			})
		})
	}
}

// TestPartForNewcomers: an Envoy that has nothing gets what there is, so that its other routes are served.
func TestPartForNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, []*translate.Resource{
			res(cluster, "db", "1"), part("db", ""), res(listener, "http", "1"),
			res(scope, "http/a", "1", "db"),
		})
		e := connect(t, g, "e")
		e.settle()
		e.want(endpoint, map[string]string{"db": ""})
		e.want(scope, map[string]string{"http/a": "1"})
		apply(g, 2, []*translate.Resource{part("db", "a")}) // this server's own word: it knows what it takes away
		e.settle()
		e.want(endpoint, map[string]string{"db": "a"})
	})
}
