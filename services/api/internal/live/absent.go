package live

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// Return is how long an Envoy whose xDS server went is waited for. An Envoy that went by itself is not.
const Return = status.Return

const (
	// maxAbsent is how many Envoys are remembered that are gone, the last ones: where each start has another name
	// they would be more and more.
	maxAbsent = 1000
	// maxNamed is how many of them an answer names.
	maxNamed = 20
)

// absent is an Envoy that was connected and is not any more.
type absent struct {
	status.ProxyStatus
	xds  string
	seen time.Time
	// until when it is waited for; zero where it went by itself.
	until time.Time
}

// lost has a server's Envoys waited for.
func (b *Board) lost(s server) {
	for _, p := range s.Proxies {
		b.miss(absent{p, s.ID, s.seen, s.seen.Add(Return)})
	}
}

// miss remembers an Envoy, unless it has gone to another server and is there already.
func (b *Board) miss(a absent) {
	for id, s := range b.servers {
		if id != a.xds && slices.ContainsFunc(s.Proxies, func(p status.ProxyStatus) bool { return same(p, a.ProxyStatus) }) {
			return
		}
	}
	b.absent = slices.Insert(b.absent, 0, a)
	b.absent = b.absent[:min(len(b.absent), maxAbsent)]
}

func same(a, b status.ProxyStatus) bool {
	return a.Gateway == b.Gateway && a.ID == b.ID && status.Host(a) == status.Host(b)
}

// found forgets those that a report has and the one before had not.
func (b *Board) found(now, before []status.ProxyStatus) {
	for _, p := range status.Gone(now, before) {
		if i := status.Returned(len(b.absent), func(i int) status.ProxyStatus { return b.absent[i].ProxyStatus }, p); i >= 0 {
			b.absent = slices.Delete(b.absent, i, i+1)
		}
	}
}

// recall takes from the first report of a server what this api was not there to see.
func (b *Board) recall(s status.XdsStatus) {
	for _, x := range slices.Backward(s.Absent) {
		seen, err := time.Parse(time.RFC3339, x.LastSeenAt)
		known := slices.ContainsFunc(b.absent, func(a absent) bool { return same(a.ProxyStatus, x.Proxy) })
		if err != nil || known {
			continue
		}
		a := absent{ProxyStatus: x.Proxy, xds: s.ID, seen: seen}
		if x.Awaited {
			a.until = b.now().Add(Return)
		}
		b.miss(a)
	}
}

// age forgets those that are gone for too long.
func (b *Board) age() {
	now := b.now()
	b.absent = slices.DeleteFunc(b.absent, func(a absent) bool { return now.Sub(a.seen) > b.Keep && now.After(a.until) })
}

// missing is an Envoy of the gateways that should come back; not ok where there is none.
func (b *Board) missing(gateways []string) (status.ProxyStatus, bool) {
	b.age()
	now := b.now()
	i := slices.IndexFunc(b.absent, func(a absent) bool { return !now.After(a.until) && slices.Contains(gateways, a.Gateway) })
	if i < 0 {
		return status.ProxyStatus{}, false
	}
	return b.absent[i].ProxyStatus, true
}

// named lists the Envoys of the gateways that are gone, the last one first, and puts them in a sentence, which is ""
// where there are none.
func (b *Board) named(gateways []string) (out []api.AbsentProxy, sentence string) {
	b.age()
	n, first := 0, absent{}
	for _, a := range b.absent {
		if !slices.Contains(gateways, a.Gateway) {
			continue
		}
		if n++; n == 1 {
			first = a
		}
		if len(out) < maxNamed {
			out = append(out, api.AbsentProxy{
				ID: a.ID, Gateway: a.Gateway, Address: a.Address, AppliedRevision: a.AppliedRevision, LastSeenAt: resource.Time(a.seen),
			})
		}
	}
	switch n {
	case 0:
		return nil, ""
	case 1:
		sentence = fmt.Sprintf("Envoy %s of gateway %s is not connected since %s", first.ID, first.Gateway, resource.Time(first.seen))
	default:
		sentence = fmt.Sprintf("%d Envoys are not connected any more, the last one %s of gateway %s since %s", n, first.ID, first.Gateway, resource.Time(first.seen))
	}
	return out, sentence
}

// Absent lists the Envoys that were connected and are not any more, in the order of their ids.
func (b *Board) Absent() []api.Proxy {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.age()
	out := make([]api.Proxy, 0, len(b.absent))
	for _, a := range b.absent {
		out = append(out, api.Proxy{
			ID: a.ID, Gateway: a.Gateway, Xds: a.xds, Address: a.Address, AppliedRevision: a.AppliedRevision, Version: a.Version,
			ConnectedAt: a.ConnectedAt, Surplus: a.Surplus, LastSeenAt: resource.Time(a.seen),
		})
	}
	slices.SortStableFunc(out, func(x, y api.Proxy) int { return strings.Compare(x.ID+x.Address, y.ID+y.Address) })
	return out
}
