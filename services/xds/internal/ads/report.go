package ads

import (
	"cmp"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// What a gateway reports of its Envoys costs what has changed: who came, went or has another seat is kept until it is
// asked for, and which of them lag is looked at where some do.

// moves are the streams that a report has not been told of.
type moves struct {
	changed map[*stream]struct{}
	gone    []uint64
}

// numbers counts the streams of the process: an Envoy that comes back has another one.
var numbers atomic.Uint64

// moved notes that an Envoy has come, or has another seat or place.
func (g *Gateway) moved(s *stream) {
	if _, here := g.streams[s]; here {
		if g.moves.changed == nil {
			g.moves.changed = map[*stream]struct{}{}
		}
		g.moves.changed[s] = struct{}{}
	}
}

// went notes that an Envoy is not connected any more.
func (g *Gateway) went(s *stream) {
	delete(g.moves.changed, s)
	g.moves.gone = append(g.moves.gone, s.number)
}

// Moves lists the Envoys that have come or have another seat or place, and the numbers of those that have gone, since it
// was called last. It is for one reader.
func (g *Gateway) Moves() (changed []Proxy, gone []uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.moves.changed {
		changed = append(changed, s.proxy())
	}
	gone = g.moves.gone
	g.moves = moves{}
	slices.SortFunc(changed, func(a, b Proxy) int { return cmp.Compare(a.Number, b.Number) })
	return changed, gone
}

// proxy is the Envoy without what it has applied.
func (s *stream) proxy() Proxy {
	return Proxy{
		Number: s.number, ID: s.id, Address: s.address, Version: s.version, ConnectedAt: s.since, Drain: s.drain,
		Surplus: s.surplus, Since: s.place,
	}
}

// Count counts the connected Envoys.
func (g *Gateway) Count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.streams)
}

// Laggard is an Envoy that lacks something.
type Laggard struct {
	Proxy
	// Behind is since when it has lacked something of a revision after the one that it has applied.
	Behind time.Time
	// Lacks is what it lacks first; Sent says that this is on its way, so that the Envoy has not answered.
	Lacks translate.Key
	Sent  bool
}

// Lag is which Envoys lack something for longer than a while.
type Lag struct {
	// Worst are those that have lacked something longest, the longest first.
	Worst []Laggard
	// Rest is what all others serve.
	Rest int64
	// Count counts those that have lacked something for more than [status.Long].
	Count int
	// Any says that some Envoy lacks something, for however short a time.
	Any bool
}

// Lag lists the Envoys that have lacked something for at least so long, at most so many.
func (g *Gateway) Lag(now time.Time, least time.Duration, most int) Lag {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := Lag{Rest: g.revision}
	type one struct {
		s       *stream
		applied int64
		behind  time.Time
	}
	var all []one
	for s := range g.streams {
		applied := s.applied()
		if applied >= g.revision {
			s.lagged = time.Time{}
			continue
		}
		if out.Any = true; s.lagged.IsZero() {
			s.lagged = now
		}
		behind := later(s.lagged, later(s.since, g.applies.after(applied)))
		if now.Sub(behind) > status.Long {
			out.Count++
		}
		if now.Sub(behind) < least {
			out.Rest = min(out.Rest, applied)
		} else {
			all = append(all, one{s, applied, behind})
		}
	}
	slices.SortFunc(all, func(a, b one) int {
		return cmp.Or(a.behind.Compare(b.behind), cmp.Compare(a.applied, b.applied), cmp.Compare(a.s.number, b.s.number))
	})
	for i, x := range all {
		if i >= most {
			out.Rest = min(out.Rest, x.applied)
			continue
		}
		l := Laggard{Proxy: x.s.proxy(), Behind: x.behind}
		l.Applied = x.applied
		l.Lacks, l.Sent = x.s.lacks()
		out.Worst = append(out.Worst, l)
	}
	return out
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// lacks is what an Envoy lacks of the oldest revision that it has not applied, and whether that is on its way.
func (s *stream) lacks() (k translate.Key, sent bool) {
	var oldest int64
	for t, ts := range s.types {
		for e, rec := range ts.records {
			if !rec.dirty || (k.Name != "" && (rec.first > oldest || (rec.first == oldest && (sent || !rec.flying)))) {
				continue
			}
			if s.counts(t, ts, rec) {
				k, oldest, sent = e.Key, rec.first, rec.flying
			}
		}
	}
	if n := s.at.next; k.Name == "" && n != nil { // it has not looked at it yet
		return n.e.Key, false
	}
	return k, sent
}

// applies are when revisions were applied to a gateway, so that a lag has an age: not each of them, but one in a while,
// and the last ones only.
type applies struct {
	revisions []int64
	times     []time.Time
}

const (
	// appliesApart is the least time between two that are kept, and maxApplies how many.
	appliesApart = 100 * time.Millisecond
	maxApplies   = 4096
)

func (a *applies) add(revision int64, now time.Time) {
	n := len(a.times)
	if n > 0 && revision < a.revisions[n-1] { // the database was restored
		*a, n = applies{}, 0
	}
	if n > 0 && now.Sub(a.times[n-1]) < appliesApart {
		a.revisions[n-1] = revision // it counts from the time of the one right before it
		return
	}
	if n >= maxApplies {
		a.revisions, a.times = slices.Delete(a.revisions, 0, n/2), slices.Delete(a.times, 0, n/2)
	}
	a.revisions, a.times = append(a.revisions, revision), append(a.times, now)
}

// after is when the first revision after one was applied; at the latest, where that is not known any more.
func (a *applies) after(revision int64) time.Time {
	if len(a.times) == 0 {
		return time.Time{}
	}
	i := sort.Search(len(a.revisions), func(i int) bool { return a.revisions[i] > revision })
	return a.times[min(i, len(a.times)-1)]
}
