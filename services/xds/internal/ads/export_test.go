package ads

import (
	"slices"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// NextTimer is how long no stream does anything by itself.
func (g *Gateway) NextTimer(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	wait := time.Hour
	for s := range g.streams {
		wait = min(wait, s.plan.nextTimer(now))
	}
	return wait
}

// Proxies lists the connected Envoys, by id and address.
func (g *Gateway) Proxies() []Proxy {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Proxy, 0, len(g.streams))
	for s := range g.streams {
		out = append(out, Proxy{
			ID: s.id, Address: s.address, Version: s.version, ConnectedAt: s.since,
			Applied: s.plan.applied(), Drain: s.drain, OverLimit: s.plan.overLimit, Since: s.seniority,
		})
	}
	slices.SortFunc(out, func(a, b Proxy) int {
		if a.ID != b.ID {
			return strings.Compare(a.ID, b.ID)
		}
		return strings.Compare(a.Address, b.Address)
	})
	return out
}

// RouteTable is what a client of the state of the world gets of a listener.
func (g *Gateway) RouteTable(listener string) *translate.Resource { return g.routeTable(listener) }

// MaxLag is how many changes the gateway's log may keep for nobody.
const MaxLag = maxLag
