package ads_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestSleeps: where an Envoy has to answer first, nobody looks again and again whether the time has come for something
// else; when it has answered, that follows at once.
func TestSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, append(service("old", "1"), res(listener, "http", "1"), res(scope, "http/a", "1", "old")))
		e := connect(t, g, "e")
		e.settle()
		apply(g, 2, []*translate.Resource{res(scope, "http/a", "2")}, key(cluster, "old"), key(endpoint, "old"))
		e.settle()
		if got := g.NextTimer(time.Now()); got < 4*time.Second || got > 5*time.Second {
			t.Errorf("the cluster that lingers is looked at in %v", got)
		}
		e.log = nil
		apply(g, 3, []*translate.Resource{res(cluster, "new", "3"), res(cluster, "sick", "bad")})
		time.Sleep(time.Minute)
		if got := g.NextTimer(time.Now()); got < time.Minute {
			t.Errorf("looked at again in %v, although nothing can be sent", got)
		}
		e.sent("Cluster new sick")
		e.settle()
		if e.has[cluster]["old"] != nil || e.has[cluster]["new"] == nil {
			t.Errorf("the Envoy has %v", e.has[cluster])
		}
		if got := g.NextTimer(time.Now()); got < 10*time.Second {
			t.Errorf("the refused cluster is tried again in %v", got)
		}
	})
}
