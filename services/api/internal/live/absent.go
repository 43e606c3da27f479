package live

import (
	"cmp"
	"fmt"
	"slices"
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

// miss remembers an Envoy, unless it has gone to another server and is there already.
func (b *Board) miss(a absent) {
	for id, s := range b.servers {
		if id != a.xds && s.Has(a.ProxyStatus) {
			return
		}
	}
	b.absent = slices.Insert(b.absent, 0, a)
	if len(b.absent) > maxAbsent { // those that are waited for stay: they are not for long
		now := b.now()
		for i := len(b.absent) - 1; i >= maxAbsent; i-- {
			if now.After(b.absent[i].until) {
				b.absent = slices.Delete(b.absent, i, i+1)
			}
		}
	}
}

func same(a, b status.ProxyStatus) bool {
	return a.Gateway == b.Gateway && a.ID == b.ID && status.Host(a) == status.Host(b)
}

// found forgets one that is back.
func (b *Board) found(p status.ProxyStatus) {
	if i := status.Returned(len(b.absent), func(i int) status.ProxyStatus { return b.absent[i].ProxyStatus }, p); i >= 0 {
		b.absent = slices.Delete(b.absent, i, i+1)
	}
}

// learnAbsent takes from the first whole report of a server what this api was not there to see.
func (b *Board) learnAbsent(s *server) {
	if s.learned || !s.Whole() {
		return
	}
	s.learned = true
	var all []status.AbsentProxy
	for x := range s.View.Absent {
		all = append(all, x)
	}
	slices.SortStableFunc(all, func(x, y status.AbsentProxy) int { return cmp.Compare(x.LastSeenAt, y.LastSeenAt) })
	for _, x := range all {
		seen, err := time.Parse(time.RFC3339, x.LastSeenAt)
		known := slices.ContainsFunc(b.absent, func(a absent) bool { return same(a.ProxyStatus, x.Proxy) })
		if err != nil || known {
			continue
		}
		a := absent{ProxyStatus: x.Proxy, xds: s.id, seen: seen}
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
	i := slices.IndexFunc(b.absent, func(a absent) bool {
		return !now.After(a.until) &&
			slices.Contains(gateways, a.Gateway)
	})
	if i < 0 {
		return status.ProxyStatus{}, false
	}
	return b.absent[i].ProxyStatus, true
}

// named lists the Envoys of the gateways that are gone, the last one first, and puts them in a sentence, which is ""
// where there are none.
func (b *Board) named(gateways []string) (out []api.AbsentProxy, sentence string) {
	if b.age(); len(b.absent) == 0 {
		return nil, ""
	}
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
				ID: a.ID, Gateway: a.Gateway, Address: a.Address, AppliedRevision: a.AppliedRevision,
				LastSeenAt: resource.Time(a.seen),
			})
		}
	}
	switch n {
	case 0:
		return nil, ""
	case 1:
		sentence = fmt.Sprintf("Envoy %s of gateway %s is not connected since %s", first.ID, first.Gateway,
			resource.Time(first.seen))
	default:
		sentence = fmt.Sprintf("%d Envoys are not connected any more, the last one %s of gateway %s since %s", n, first.ID,
			first.Gateway, resource.Time(first.seen))
	}
	return out, sentence
}

// Absent counts the Envoys that are gone, for as long as they are remembered.
func (b *Board) Absent() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fresh()
	b.age()
	return len(b.absent)
}
