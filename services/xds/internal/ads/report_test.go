package ads_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
)

// TestLag: an Envoy that answers no more is named with what it lacks and since when, and the others count as what they
// serve; when it answers, nobody is named.
func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		apply(g, 1, []*translate.Resource{res(listener, "http", "1"), res(scope, "http/a", "1")})
		hung, well := connect(t, g, "hung"), connect(t, g, "well")
		hung.settle()
		well.settle()
		time.Sleep(time.Hour)
		changed := time.Now()
		apply(g, 2, []*translate.Resource{res(scope, "http/a", "2")})
		well.settle()
		say := func(after time.Duration, most int) string {
			time.Sleep(after - time.Since(changed))
			l := g.Lag(time.Now(), 250*time.Millisecond, most)
			out := []string{fmt.Sprintf("rest %d, %d for long", l.Rest, l.Count)}
			for _, x := range l.Worst {
				out = append(out, fmt.Sprintf("%s at %d lacks %s %s sent %v since %s", x.ID, x.Applied, ads.ShortType(x.Lacks.Type),
					x.Lacks.Name, x.Sent, x.Behind.Sub(changed)))
			}
			return strings.Join(out, "; ")
		}
		const lacks = "hung at 1 lacks ScopedRouteConfiguration http/a sent true since 0s"
		for _, c := range []struct {
			after time.Duration
			want  string
		}{
			{0, "rest 1, 0 for long"}, // it has not lacked it for long enough to be named
			{time.Second, "rest 2, 0 for long; " + lacks},
			{6 * time.Second, "rest 2, 1 for long; " + lacks},
		} {
			if got := say(c.after, 20); got != c.want {
				t.Errorf("after %s: %q, want %q", c.after, got, c.want)
			}
		}
		if got := say(7*time.Second, 0); got != "rest 1, 1 for long" {
			t.Errorf("who is not named counts as the rest: %q", got)
		}
		apply(g, 3, []*translate.Resource{res(scope, "http/a", "3"), res(scope, "http/b", "3")})
		well.settle()
		if got := say(8*time.Second, 20); got != "rest 3, 1 for long; "+lacks {
			t.Errorf("its age is that of what it lacks first: %q", got)
		}
		hung.settle()
		if got := say(9*time.Second, 20); got != "rest 3, 0 for long" {
			t.Errorf("when it has answered: %q", got)
		}
		if l := g.Lag(time.Now(), 0, 20); l.Any {
			t.Error("and nobody lacks anything")
		}
	})
}

// TestMoves: each Envoy that came, and each that went, is told once.
func TestMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		one, two := connect(t, g, "one"), connect(t, g, "two")
		came, gone := g.ProxyChanges()
		if len(came) != 2 || len(gone) != 0 || g.Count() != 2 || came[0].Number == came[1].Number || came[0].Number == 0 {
			t.Fatalf("%+v, %v", came, gone)
		}
		three := connect(t, g, "three")
		one.hangUp()
		three.hangUp()
		again, left := g.ProxyChanges()
		if len(again) != 0 || len(left) != 2 || left[0] != came[0].Number || g.Count() != 1 {
			t.Errorf("%+v, %v", again, left)
		}
		two.settle()
		if again, left := g.ProxyChanges(); len(again)+len(left) > 0 {
			t.Errorf("nothing has moved: %+v, %v", again, left)
		}
	})
}
