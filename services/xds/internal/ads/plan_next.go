package ads

import (
	"cmp"
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// item is one resource in a response.
type item struct {
	// entry is nil for a secret under an alias.
	entry    *entry
	name     string
	resource *translate.Resource // nil: removal
	revision int64
}

// next makes the next response that may be sent, or nil.
func (p *plan) next(now time.Time) *response {
	p.lookForVariants()
	for _, tp := range p.order {
		if !tp.open() {
			continue
		}
		if tp.unlisted {
			p.list(tp)
		}
		items := tp.pick(p, tp, now)
		if len(items) > 0 || tp.answer || len(tp.absent) > 0 {
			return p.respond(tp, items)
		}
	}
	return nil
}

// respond makes a response, and notes that it is in flight.
func (p *plan) respond(tp *typePlan, items []item) *response {
	r := &response{typ: tp.typ, nonce: p.newNonce(), items: items}
	// Envoy rejects a response that has a name twice.
	slices.Sort(tp.absent)
	r.absent = slices.DeleteFunc(slices.Compact(tp.absent), func(name string) bool {
		return slices.ContainsFunc(items, func(it item) bool { return it.name == name })
	})
	tp.inflight = append(tp.inflight, r)
	tp.answer, tp.absent = false, nil
	for _, it := range items {
		if it.entry == nil {
			if tp.aliasesSent == nil {
				tp.aliasesSent = map[string]bool{}
			}
			tp.aliasesSent[it.name] = true
			continue
		}
		tp.records[it.entry].inFlight = true
		if it.resource == nil {
			if tp.removalSent != nil {
				tp.removalSent(p, it.name)
			}
			continue
		}
		p.countUses(it.resource, 1)
		p.countPerRoute(it.resource, 1)
		if tp.sent != nil {
			tp.sent(p, it)
		}
	}
	return r
}

// clusterSent has a cluster's endpoints follow it: Envoy warms a changed cluster afresh and waits for endpoints,
// which it has asked for already.
func (p *plan) clusterSent(it item) {
	e := p.t.entry(translate.Key{Type: translate.TypeEndpoint, Name: it.name})
	rec := p.open(e, e.served)
	if rec.pending && rec.next == 0 && rec.inFlight {
		rec.next = it.revision
	} else {
		p.setPending(rec, it.revision)
	}
	rec.resend, rec.resendAgain = true, rec.inFlight
}

// clusterRemovalSent notes that a cluster is about to be removed: one of this name that comes back starts from
// nothing.
func (p *plan) clusterRemovalSent(cluster string) {
	tp := p.types[translate.TypeEndpoint]
	if tp.removing == nil {
		tp.removing = map[string]bool{}
	}
	tp.removing[cluster] = true
	if e := tp.all.byName[cluster]; p.has(e) != nil {
		rec := p.open(e, e.served)
		p.drop(rec)
		p.closeIfIdle(rec)
	}
}

// pickMany chooses the resources of one response: the next part of a rejected one, or all that may be sent now, or one
// that is tried again.
func (p *plan) pickMany(tp *typePlan, now time.Time) []item {
	items := p.pickGroup(tp, now)
	if len(items) == 0 {
		items = p.pickPending(tp, now)
	}
	if len(items) == 0 && !tp.answer {
		items = p.pickRetry(tp, now)
	}
	if tp.single && len(items) > 0 {
		items = []item{p.first(tp, items[0])}
	}
	return items
}

// pickGroup chooses the next part of a rejected response.
func (p *plan) pickGroup(tp *typePlan, now time.Time) []item {
	for len(tp.groups) > 0 {
		group := tp.groups[0]
		tp.groups = tp.groups[1:]
		var items []item
		for _, e := range group {
			if rec := tp.records[e]; rec != nil && rec.pending {
				if it, ok := p.carryOut(rec, p.decide(tp, rec, now), now); ok {
					items = append(items, it)
				}
			}
		}
		if len(items) > 0 {
			return items
		}
	}
	return nil
}

// pickPending chooses what may be sent now.
func (p *plan) pickPending(tp *typePlan, now time.Time) []item {
	if tp.removal == removedUnused {
		p.lookAtUnused(now)
	}
	var proven, unproven, removals []item
	for _, rec := range tp.take() {
		it, ok := p.carryOut(rec, p.decide(tp, rec, now), now)
		switch {
		case !ok:
		case it.resource == nil:
			removals = append(removals, it)
		case rec.entry.proven():
			proven = append(proven, it)
		default:
			unproven = append(unproven, it)
		}
	}
	// Versions that some Envoy has ACKed are sent first, and apart from the others: Envoy rejects a response as a whole,
	// and an unproven resource in it would take the good ones along.
	if len(proven) > 0 {
		for _, it := range unproven {
			p.enqueue(tp.records[it.entry])
		}
		return byName(append(proven, removals...))
	}
	return byName(append(unproven, removals...))
}

// pickRetry chooses a rejected version that it is time to try again.
func (p *plan) pickRetry(tp *typePlan, now time.Time) []item {
	for k := range p.t.rejected {
		if k.Type != tp.typ {
			continue
		}
		e := tp.all.byName[k.Name]
		if at, ok := p.retryAt(tp, e); ok && !now.Before(at) {
			p.t.retried(e, now)
			return []item{{entry: e, name: e.Name, resource: p.variant(e.desired), revision: e.revision}}
		}
	}
	return nil
}

// first is the only resource of a response with an ECDS filter config. Where the Envoy has rejected this version last,
// something else is sent before it, since the same content again would be ACKed and not used.
func (p *plan) first(tp *typePlan, it item) item {
	if it.resource == nil || it.resource.Version != tp.lastRejected[it.name] {
		return it
	}
	other := translate.Closed(it.name)
	if e := tp.all.byName[it.name]; e != nil {
		if e.lastGood != nil && !e.lastGood.Is(it.resource.Version) {
			other = p.variant(e.lastGood)
		}
		if e.rejection != nil {
			e.rejection.tryAtOnce()
		}
	}
	it.resource = other
	return it
}

func byName(items []item) []item {
	slices.SortFunc(items, func(a, b item) int { return cmp.Compare(a.name, b.name) })
	return items
}

// lingering is a cluster that is unused since then, and about to be removed.
type lingering struct {
	rec   *record
	since time.Time
}

// lookAtUnused has clusters looked at that have been unused for long enough.
func (p *plan) lookAtUnused(now time.Time) {
	for len(p.unused) > 0 && !now.Before(p.unused[0].since.Add(p.linger)) {
		if l := p.unused[0]; l.rec.unusedSince.Equal(l.since) && l.rec.pending {
			p.enqueue(l.rec)
		}
		p.unused = p.unused[1:]
	}
}

// nextTimer is how long nothing happens by itself. What has to wait for an answer of the Envoy is looked at when that
// comes, whatever its time.
func (p *plan) nextTimer(now time.Time) time.Duration {
	wait := time.Hour
	if len(p.unused) > 0 && p.types[translate.TypeCluster].open() {
		wait = p.unused[0].since.Add(p.linger).Sub(now)
	}
	for k := range p.t.rejected {
		tp := p.types[k.Type]
		if tp.contentDecides || !tp.open() {
			continue // it is not tried again, or not now
		}
		if at, ok := p.retryAt(tp, p.t.find(k.Type, k.Name)); ok {
			wait = min(wait, at.Sub(now))
		}
	}
	return max(wait, 10*time.Millisecond)
}
