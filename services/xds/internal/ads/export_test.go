package ads

import (
	"slices"
	"time"
)

// NextTimer is how long no stream does anything by itself.
func (g *Gateway) NextTimer(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	wait := time.Hour
	for s := range g.streams {
		wait = min(wait, s.nextTimer(now))
	}
	return wait
}

// Proxies lists the connected Envoys, by id and address.
func (g *Gateway) Proxies() []Proxy {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Proxy, 0, len(g.streams))
	for s := range g.streams {
		out = append(out, Proxy{ID: s.id, Address: s.address, Version: s.version, ConnectedAt: s.since, Applied: s.applied(), Drain: s.drain, Surplus: s.surplus, Since: s.place})
	}
	slices.SortFunc(out, func(a, b Proxy) int {
		if a.ID != b.ID {
			return compare(a.ID, b.ID)
		}
		return compare(a.Address, b.Address)
	})
	return out
}
