package ads_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestTurns: more Envoys than may catch up at once lack much, and some of those that wait say something meanwhile:
// they acknowledge what they were sent before. They have caught up by that, and hold up nobody who waits behind them.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hosts, envoys = 300, 80
		g := newGateway()
		scopes := func(text string) (out []*translate.Resource) {
			for i := range hosts {
				out = append(out, res(scope, fmt.Sprintf("host%03d", i), text))
			}
			return out
		}
		apply(g, 1, scopes("1"))
		var all []*envoy
		for i := range envoys {
			e := connect(t, g, name("envoy", i))
			e.settle()
			all = append(all, e)
		}
		// Every second one acknowledges a cluster only after many scopes have changed.
		apply(g, 2, []*translate.Resource{res(cluster, "web", "2")})
		for i := 0; i < envoys; i += 2 {
			all[i].settle()
		}
		apply(g, 3, scopes("3"))
		var waiting []int
		for i, e := range all {
			e.read()
			if !slices.ContainsFunc(e.waiting, func(r *discoveryv3.DeltaDiscoveryResponse) bool {
				return translate.Type(r.GetTypeUrl()) == scope
			}) {
				waiting = append(waiting, i)
			}
		}
		if len(waiting) == 0 {
			t.Fatal("no Envoy waits for a turn")
		}
		for _, i := range waiting {
			all[i].answer()
		}
		for range 2 { // those that wait have nothing to answer until the others have answered
			for _, e := range all {
				e.settle()
			}
		}
		want := map[string]string{}
		for i := range hosts {
			want[fmt.Sprintf("host%03d", i)] = "3"
		}
		for i, e := range all {
			if texts := e.texts(scope); texts["host000"] != "3" {
				t.Errorf("Envoy %d waits for a turn for ever", i)
				continue
			}
			e.want(scope, want)
		}
	})
}
