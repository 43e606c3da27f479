package live

import (
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/status"
)

// Return is how long an Envoy whose xDS server went is waited for: it still serves, what it had, and comes
// back to that server or to another one. An Envoy that went by itself is not waited for.
const Return = 30 * time.Second

// awaited is an Envoy that should come back.
type awaited struct {
	status.ProxyStatus
	until time.Time
}

// lost has a server's Envoys waited for.
func (b *Board) lost(s server) {
	for _, p := range s.Proxies {
		b.awaited = append(b.awaited, awaited{p, s.seen.Add(Return)})
	}
}

// found ends the waiting for those that a report has and the one before had not.
func (b *Board) found(now, before []status.ProxyStatus) {
	for _, p := range now {
		if slices.ContainsFunc(before, func(o status.ProxyStatus) bool {
			return o.Gateway == p.Gateway && o.ID == p.ID && o.Address == p.Address && o.ConnectedAt == p.ConnectedAt
		}) {
			continue
		}
		i := slices.IndexFunc(b.awaited, func(a awaited) bool { return a.Gateway == p.Gateway && a.ID == p.ID })
		if i >= 0 {
			b.awaited = slices.Delete(b.awaited, i, i+1)
		}
	}
}

// missing is an Envoy of the gateways that should come back; not ok where there is none.
func (b *Board) missing(gateways []string) (status.ProxyStatus, bool) {
	now := b.now()
	b.awaited = slices.DeleteFunc(b.awaited, func(a awaited) bool { return now.After(a.until) })
	i := slices.IndexFunc(b.awaited, func(a awaited) bool { return slices.Contains(gateways, a.Gateway) })
	if i < 0 {
		return status.ProxyStatus{}, false
	}
	return b.awaited[i].ProxyStatus, true
}
