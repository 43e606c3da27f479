package ads

import (
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// record is a resource of which an Envoy has something else than what is served, or has to be told something. Of all
// others a plan keeps one bit: the Envoy has what is served.
type record struct {
	entry *entry
	// has is the version that the Envoy has: it has ACKed it, or said so when it came. nil for none. One that came from
	// an earlier process has no Body.
	has *translate.Resource
	// first is the oldest revision that is not on the Envoy. next is the first one that came after the version in flight
	// was sent, 0 for none.
	first, next int64
	// pending says that the Envoy has not (fully) got it.
	pending bool
	// removeFirst is for a cluster that the Envoy has to be without before it gets it again.
	removeFirst bool
	// resend sends the version even where the Envoy has it. resendAgain asks for that once more after the response in
	// flight.
	resend, resendAgain bool
	// inFlight says that it is in a response in flight, queued that it is in its type's queue, and awaitsFilters that it
	// is among those that wait for filter configs.
	inFlight, queued, awaitsFilters bool
	// awaits is the cluster that it waits for.
	awaits string
	// unusedSince is since when a cluster that is to be removed is unused.
	unusedSince time.Time
}

// adopted is a version that an Envoy says it has: a variant of one of these, or what nothing is known of.
func adopted(k translate.Key, version string, of ...*translate.Resource) *translate.Resource {
	for _, r := range of {
		if found := r.Find(version); found != nil {
			return found
		}
	}
	return &translate.Resource{Key: k, Version: version}
}

// has is what the Envoy has of a resource, nil for nothing.
func (p *plan) has(e *entry) *translate.Resource {
	if e == nil {
		return nil
	}
	tp := p.types[e.Type]
	if rec := tp.records[e]; rec != nil {
		return rec.has
	}
	if tp.current.has(e.id) {
		return p.variant(e.served)
	}
	return nil
}

// record opens a record of something that the Envoy has, if it has it, as it is served.
func (p *plan) record(e *entry) *record {
	p.sync()
	return p.open(e, e.served)
}

// open makes a record of a resource; was is what the Envoy has where it has what is served.
func (p *plan) open(e *entry, was *translate.Resource) *record {
	tp := p.types[e.Type]
	if rec := tp.records[e]; rec != nil {
		return rec
	}
	rec := &record{entry: e}
	if tp.records == nil {
		tp.records = map[*entry]*record{}
	}
	if tp.records[e] = rec; !tp.current.has(e.id) {
		e.refs++
		return rec
	}
	tp.current.clear(e.id)
	rec.has = p.variant(was)
	p.countUses(rec.has, 1)
	return rec
}

// closeIfIdle forgets a record that says nothing.
func (p *plan) closeIfIdle(rec *record) {
	p.sync()
	e := rec.entry
	tp := p.types[e.Type]
	if rec.pending || rec.inFlight || tp.records[e] != rec {
		return
	}
	served := p.variant(e.served)
	switch {
	case rec.has == nil:
		tp.close(e)
		p.t.unref(e)
	case served != nil && rec.has.Version == served.Version && e.uniform():
		p.countUses(rec.has, -1)
		p.countPerRoute(rec.has, -1)
		p.countPerRoute(served, 1)
		tp.current.set(e.id)
		tp.close(e)
	}
}

func (tp *typePlan) close(e *entry) {
	if delete(tp.records, e); len(tp.records) == 0 {
		tp.records = nil // a map does not shrink
	}
}

// setHas replaces what the Envoy has.
func (p *plan) setHas(rec *record, r *translate.Resource) {
	p.drop(rec)
	rec.has = r
	p.countUses(r, 1)
	p.countPerRoute(r, 1)
}

// drop notes that the Envoy no longer has it.
func (p *plan) drop(rec *record) {
	if r := rec.has; r != nil {
		rec.has = nil
		p.countUses(r, -1)
		p.countPerRoute(r, -1)
	}
}

// countUses counts the clusters of a version that an Envoy has although something else is served, or that is being
// sent.
func (p *plan) countUses(r *translate.Resource, by int) {
	for _, c := range r.Clusters {
		if p.uses == nil {
			p.uses = map[string]int{}
		}
		if p.uses[c] += by; p.uses[c] > by && p.uses[c] > 0 {
			continue
		}
		if p.uses[c] <= 0 {
			delete(p.uses, c)
		}
		p.lookAgain(translate.TypeCluster, c) // it may be about to be removed
	}
	if len(p.uses) == 0 {
		p.uses = nil // a map does not shrink
	}
	if unknown(r) && p.types[r.Type].usesClusters {
		if p.unknownUses += by; p.unknownUses == 0 {
			p.lookAtAll(translate.TypeCluster)
		}
	}
}

// countPerRoute counts the route tables that the Envoy has, or is being sent, by what they set per route.
func (p *plan) countPerRoute(r *translate.Resource, by int) {
	if r != nil && p.types[r.Type].perRoute {
		p.perRoute.add(maySet(r), by)
	}
}

// settingCounts counts route tables by what they set per route.
type settingCounts [3]int

func (c *settingCounts) add(sets translate.RouteSettings, by int) {
	for i := range c {
		if sets&(1<<i) != 0 {
			c[i] += by
		}
	}
}

// any says whether there is a table that sets one of these.
func (c *settingCounts) any(one translate.RouteSettings) bool {
	for i, n := range c {
		if one&(1<<i) != 0 && n > 0 {
			return true
		}
	}
	return false
}

// used says whether the Envoy has, or is being sent, something that sends traffic to a cluster.
func (p *plan) used(cluster string) bool {
	if p.uses[cluster] > 0 || p.unknownUses > 0 {
		return true
	}
	for e := range p.t.users[cluster] {
		if p.types[e.Type].current.has(e.id) {
			return true
		}
	}
	return false
}

// setPending notes that the Envoy has not got a resource since a revision.
func (p *plan) setPending(rec *record, first int64) {
	if !rec.pending {
		rec.pending, rec.first, rec.next = true, first, 0
		rec.removeFirst, rec.resend, rec.resendAgain = false, false, false
	}
	p.enqueue(rec)
}

// clearPending notes that it has.
func (p *plan) clearPending(rec *record) {
	rec.pending, rec.first, rec.next, rec.removeFirst, rec.resend, rec.resendAgain = false, 0, 0, false, false, false
	p.recount()
	p.closeIfIdle(rec)
}

// enqueue has a resource looked at.
func (p *plan) enqueue(rec *record) {
	p.recount()
	if !rec.queued {
		tp := p.types[rec.entry.Type]
		rec.queued, tp.queue = true, append(tp.queue, rec)
	}
}

// take empties the queue of what is to be looked at.
func (tp *typePlan) take() []*record {
	out := tp.queue[:0]
	for _, rec := range tp.queue {
		rec.queued = false
		if rec.pending && !rec.inFlight && tp.records[rec.entry] == rec {
			out = append(out, rec)
		}
	}
	tp.queue = nil
	return out
}

// lookAgain has a pending resource looked at again.
func (p *plan) lookAgain(typ translate.Type, name string) {
	tp := p.types[typ]
	if rec := tp.records[tp.all.byName[name]]; rec != nil && rec.pending {
		p.enqueue(rec)
	}
}

// lookAtAll has all pending resources of a type looked at again.
func (p *plan) lookAtAll(typ translate.Type) {
	for _, rec := range p.types[typ].records {
		if rec.pending {
			p.enqueue(rec)
		}
	}
}

// await has a resource looked at when a cluster is ready.
func (p *plan) await(cluster string, rec *record) {
	if rec.awaits == cluster {
		return
	}
	if p.awaitCluster == nil {
		p.awaitCluster = map[string][]*record{}
	}
	rec.awaits = cluster
	p.awaitCluster[cluster] = append(p.awaitCluster[cluster], rec)
}

// clusterArrived has what waits for a cluster or its endpoints looked at.
func (p *plan) clusterArrived(cluster string) {
	p.lookAgain(translate.TypeCluster, cluster)
	waiting := p.awaitCluster[cluster]
	if len(waiting) == 0 {
		return
	}
	if delete(p.awaitCluster, cluster); len(p.awaitCluster) == 0 {
		p.awaitCluster = nil
	}
	for _, rec := range waiting {
		if rec.awaits == cluster {
			rec.awaits = ""
			p.enqueue(rec)
		}
	}
}

// filtersMoved has what waits for filter configs looked at.
func (p *plan) filtersMoved() {
	for _, rec := range p.awaitFilters {
		rec.awaitsFilters = false
		p.enqueue(rec)
	}
	p.awaitFilters = nil
}
