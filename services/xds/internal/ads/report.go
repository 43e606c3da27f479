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

// A report costs what has changed since the one before, not what there is: a gateway notes which Envoys came, went or
// gained or lost a seat until the report asks for them, and looks for Envoys that lag only while some do.

// proxyChanges are the streams that a report has not been told of.
type proxyChanges struct {
	changed map[*deltaStream]struct{}
	gone    []uint64
}

// numbers counts the streams of the process: an Envoy that comes back has another one.
var numbers atomic.Uint64

// proxyChanged notes that an Envoy has come, or has another seat or seniority.
func (g *Gateway) proxyChanged(s *deltaStream) {
	if _, here := g.streams[s]; here {
		if g.changes.changed == nil {
			g.changes.changed = map[*deltaStream]struct{}{}
		}
		g.changes.changed[s] = struct{}{}
	}
}

// proxyGone notes that an Envoy is not connected any more.
func (g *Gateway) proxyGone(s *deltaStream) {
	delete(g.changes.changed, s)
	g.changes.gone = append(g.changes.gone, s.number)
}

// ProxyChanges lists the Envoys that have come or have another seat or seniority, and the numbers of those that have
// gone, since it was called last. It is for one reader.
func (g *Gateway) ProxyChanges() (changed []Proxy, gone []uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.changes.changed {
		changed = append(changed, s.proxy())
	}
	gone = g.changes.gone
	g.changes = proxyChanges{}
	slices.SortFunc(changed, func(a, b Proxy) int { return cmp.Compare(a.Number, b.Number) })
	return changed, gone
}

// proxy is the Envoy without what it has applied.
func (s *deltaStream) proxy() Proxy {
	return Proxy{
		Number: s.number, ID: s.id, Address: s.address, Version: s.version, ConnectedAt: s.since, Drain: s.drain,
		OverLimit: s.plan.overLimit, Since: s.seniority,
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
	out := Lag{Rest: g.table.revision}
	type one struct {
		s       *deltaStream
		applied int64
		behind  time.Time
	}
	var all []one
	for s := range g.streams {
		applied := s.plan.applied()
		if applied >= g.table.revision {
			s.lagged = time.Time{}
			continue
		}
		if out.Any = true; s.lagged.IsZero() {
			s.lagged = now
		}
		behind := later(s.lagged, later(s.since, g.times.after(applied)))
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
		l.Lacks, l.Sent = x.s.plan.lacking()
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

// revisionTimes are when revisions were applied to a gateway, so that a lag has an age: not each of them, but one in
// a while, and the last ones only.
type revisionTimes struct {
	revisions []int64
	times     []time.Time
}

const (
	// timesApart is the least time between two that are kept, and maxTimes how many.
	timesApart = 100 * time.Millisecond
	maxTimes   = 4096
)

func (t *revisionTimes) add(revision int64, now time.Time) {
	n := len(t.times)
	if n > 0 && revision < t.revisions[n-1] { // the database was restored
		*t, n = revisionTimes{}, 0
	}
	if n > 0 && now.Sub(t.times[n-1]) < timesApart {
		t.revisions[n-1] = revision // it counts from the time of the one right before it
		return
	}
	if n >= maxTimes {
		t.revisions, t.times = slices.Delete(t.revisions, 0, n/2), slices.Delete(t.times, 0, n/2)
	}
	t.revisions, t.times = append(t.revisions, revision), append(t.times, now)
}

// after is when the first revision after one was applied; at the latest, where that is not known any more.
func (t *revisionTimes) after(revision int64) time.Time {
	if len(t.times) == 0 {
		return time.Time{}
	}
	i := sort.Search(len(t.revisions), func(i int) bool { return t.revisions[i] > revision })
	return t.times[min(i, len(t.times)-1)]
}
