package ads

import (
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// next makes the next response that may be sent, or nil.
func (s *stream) next(now time.Time) *push {
	s.reform()
	for _, t := range order {
		ts := s.types[t]
		if !ts.open() {
			continue
		}
		if ts.fresh {
			s.refresh(t, ts)
		}
		var items []item
		if t == translate.TypeSecret {
			items = s.secrets(ts, now)
		} else {
			items = s.collect(t, ts, now)
		}
		if t == translate.TypeExtension {
			items = s.alone(ts, items)
		}
		if len(items) == 0 && !ts.answer && len(ts.absent) == 0 {
			continue
		}
		return s.response(t, ts, items)
	}
	return nil
}

// alone takes the first of some slots' contents. Envoy compares what a slot is sent with what it was sent
// last, whether it took that or not: a refused content that is sent again is ACKed, and not applied.
// So each goes alone, that a refusal need not be looked for by sending it again; and before a refused one
// is tried again, the slot is sent something else.
func (s *stream) alone(ts *typeState, items []item) []item {
	if len(items) == 0 {
		return items
	}
	it := items[0]
	if it.resource != nil && it.resource.Version == ts.spoiled[it.name] {
		other := translate.Closed(it.name)
		if e := s.g.entries[translate.TypeExtension][it.name]; e != nil {
			if e.good != nil && !e.good.Is(it.resource.Version) {
				other = s.form(e.good)
			}
			if e.bad != nil {
				e.bad.at = time.Time{} // the try itself follows at once
			}
		}
		it.resource = other
	}
	return []item{it}
}

func (s *stream) response(t translate.Type, ts *typeState, items []item) *push {
	msg := &push{t: t, nonce: s.newNonce(), items: items}
	// Envoy refuses a response that has a name twice.
	slices.Sort(ts.absent)
	msg.absent = slices.DeleteFunc(slices.Compact(ts.absent), func(name string) bool {
		return slices.ContainsFunc(items, func(it item) bool { return it.name == name })
	})
	ts.inflight = append(ts.inflight, &response{nonce: msg.nonce, items: items})
	ts.answer, ts.absent = false, nil
	for _, it := range items {
		if it.e == nil {
			if ts.lending == nil {
				ts.lending = map[string]bool{}
			}
			ts.lending[it.name] = true
			continue
		}
		ts.records[it.e].flying = true
		if it.resource == nil {
			if t == translate.TypeCluster {
				s.removing(it.name)
			}
			continue
		}
		s.claim(it.resource, 1)
		s.speak(it.resource, 1)
		if t == translate.TypeCluster {
			// Envoy warms a changed cluster afresh and waits for its endpoints, which it has already asked for.
			s.force(translate.Key{Type: translate.TypeEndpoint, Name: it.name}, it.revision)
		}
	}
	return msg
}

// removing notes that a cluster is about to be removed: one of this name that comes back starts from nothing.
func (s *stream) removing(cluster string) {
	ts := s.types[translate.TypeEndpoint]
	if ts.leaving == nil {
		ts.leaving = map[string]bool{}
	}
	ts.leaving[cluster] = true
	if e := s.g.entries[translate.TypeEndpoint][cluster]; s.have(e) != nil {
		rec := s.open(e, e.served)
		s.drop(rec)
		s.tidy(rec)
	}
}

func (s *stream) force(k translate.Key, revision int64) {
	e := s.g.entry(k)
	rec := s.open(e, e.served)
	if rec.dirty && rec.next == 0 && rec.flying {
		rec.next = revision
	} else {
		s.mark(rec, revision)
	}
	rec.force, rec.again = true, rec.flying
}

// collect picks the resources of one response.
func (s *stream) collect(t translate.Type, ts *typeState, now time.Time) []item {
	for len(ts.groups) > 0 {
		group := ts.groups[0]
		ts.groups = ts.groups[1:]
		var items []item
		for _, e := range group {
			if rec := ts.records[e]; rec != nil && rec.dirty {
				if it, ok := s.consider(t, ts, rec, now); ok {
					items = append(items, it)
				}
			}
		}
		if len(items) > 0 {
			return items
		}
	}
	s.expire(t, now)
	var proven, unjudged, removals []item
	for _, rec := range ts.take() {
		it, ok := s.consider(t, ts, rec, now)
		switch {
		case !ok:
		case it.resource == nil:
			removals = append(removals, it)
		case rec.e.accepted():
			proven = append(proven, it)
		default:
			unjudged = append(unjudged, it)
		}
	}
	// What some Envoy has accepted goes first and together; what none has judged cannot spoil it.
	if len(proven) > 0 {
		for _, it := range unjudged {
			s.enqueue(ts.records[it.e])
		}
		return sorted(append(proven, removals...))
	}
	if len(unjudged)+len(removals) > 0 {
		return sorted(append(unjudged, removals...))
	}
	if e := s.retry(t, ts, now); e != nil && !ts.answer {
		e.bad.at, e.bad.others = now, false
		s.g.epoch++
		return []item{{e: e, name: e.Name, resource: s.form(e.desired), revision: e.revision}}
	}
	return nil
}

// retry finds a refused resource that it is time to try again.
func (s *stream) retry(t translate.Type, ts *typeState, now time.Time) *entry {
	for k := range s.g.refused {
		if e := s.g.entries[t][k.Name]; k.Type == t && s.mayRetry(ts, e, now) {
			return e
		}
	}
	return nil
}

func sorted(items []item) []item {
	slices.SortFunc(items, func(a, b item) int { return compare(a.name, b.name) })
	return items
}

// consider says whether a dirty resource may be sent now, and forgets dirt that is settled. What has to wait is
// looked at again when what it waits for comes.
func (s *stream) consider(t translate.Type, ts *typeState, rec *record, now time.Time) (item, bool) {
	e := rec.e
	eff := s.form(e.served)
	has := rec.have != nil
	if eff == nil {
		if !has {
			if !e.quarantined() {
				s.clean(rec)
			}
			return item{}, false
		}
		if e.bad != nil {
			return item{}, false // refused, and what the Envoy has is nobody's: leave it
		}
		return item{e: e, name: e.Name}, s.mayRemove(t, rec, now)
	}
	if rec.anew && has {
		return item{e: e, name: e.Name}, true
	}
	if has && rec.have.Version == eff.Version && !rec.force {
		if !e.quarantined() {
			s.clean(rec)
		}
		return item{}, false
	}
	if has && !rec.force && outlives(rec.have, eff) {
		s.clean(rec)
		return item{}, false
	}
	if !ts.wants(e) || (has && t == translate.TypeCluster && s.waits(e.Name)) {
		return item{}, false
	}
	for _, c := range eff.Clusters {
		if !s.ready(c) {
			s.await(c, rec)
			return item{}, false
		}
	}
	if !s.fits(e, eff) {
		if !rec.waits {
			rec.waits, s.slotted = true, append(s.slotted, rec)
		}
		return item{}, false
	}
	if s.tooEarly(eff, has) {
		return item{}, false
	}
	return item{e: e, name: e.Name, resource: eff, revision: e.revision}, true
}

// fits says whether the Envoy's slots hold what a resource needs. What some Envoy has accepted before
// a slot's new content was refused goes with the old one.
func (s *stream) fits(e *entry, r *translate.Resource) bool {
	if len(r.Needs) > 0 && !e.accepted() && s.g.blocker(r) != nil {
		return false
	}
	for _, k := range r.Needs {
		slot := s.g.entries[k.Type][k.Name]
		if slot == nil || slot.served == nil || !s.types[k.Type].names.has(slot.id) {
			continue
		}
		if have := s.have(slot); have == nil || have.Version != s.form(slot.served).Version {
			return false
		}
	}
	return true
}

// mayRetry says whether it is time to try a refused version again, alone.
func (s *stream) mayRetry(ts *typeState, e *entry, now time.Time) bool {
	at, ok := s.retryAt(ts, e)
	return ok && !now.Before(at)
}

// retryAt is when a refused version may be tried again, if nothing else is missing for that.
func (s *stream) retryAt(ts *typeState, e *entry) (at time.Time, ok bool) {
	if e == nil || e.desired == nil || e.bad == nil || e.contained != nil || !ts.wants(e) {
		return at, false
	}
	if rec := ts.records[e]; rec == nil || !rec.dirty {
		return at, false
	}
	for _, c := range e.desired.Clusters {
		if !s.ready(c) {
			return at, false
		}
	}
	if e.bad.others && e.bad.by != s {
		return e.bad.at, true
	}
	return e.bad.at.Add(s.g.opt.Retry << min(e.bad.tries, 5)), true
}

// ready says whether traffic may be sent to a cluster: the Envoy has it, with its endpoints.
func (s *stream) ready(cluster string) bool {
	return s.have(s.g.entries[translate.TypeCluster][cluster]) != nil && s.have(s.g.entries[translate.TypeEndpoint][cluster]) != nil
}

// lingering is a cluster that is unused since then, and about to be removed.
type lingering struct {
	rec   *record
	since time.Time
}

// mayRemove says whether nothing speaks against a removal.
func (s *stream) mayRemove(t translate.Type, rec *record, now time.Time) bool {
	if t == translate.TypeSecret && rec.have.ByName {
		return true
	}
	switch t {
	case translate.TypeEndpoint, translate.TypeSecret, translate.TypeExtension, translate.TypeRuntime:
		// They go with what names them: the Envoy unsubscribes.
		s.clean(rec)
		return false
	}
	if t != translate.TypeCluster {
		return true
	}
	if s.used(rec.e.Name) || (!s.types[translate.TypeScope].subscribed && s.g.kinds[translate.TypeListener].served > 0) {
		rec.free = time.Time{}
		return false
	}
	if rec.free.IsZero() {
		rec.free = now
		s.free = append(s.free, lingering{rec, now})
	}
	return !now.Before(rec.free.Add(s.g.opt.Linger))
}

// expire has clusters looked at that have been unused for long enough.
func (s *stream) expire(t translate.Type, now time.Time) {
	if t != translate.TypeCluster {
		return
	}
	for len(s.free) > 0 && !now.Before(s.free[0].since.Add(s.g.opt.Linger)) {
		if l := s.free[0]; l.rec.free.Equal(l.since) && l.rec.dirty {
			s.enqueue(l.rec)
		}
		s.free = s.free[1:]
	}
}

// nextTimer is how long nothing happens by itself. What has to wait for an answer of the Envoy is looked at when that
// comes, whatever its time.
func (s *stream) nextTimer(now time.Time) time.Duration {
	wait := time.Hour
	if len(s.free) > 0 && s.types[translate.TypeCluster].open() {
		wait = s.free[0].since.Add(s.g.opt.Linger).Sub(now)
	}
	for k := range s.g.refused {
		ts := s.types[k.Type]
		if k.Type == translate.TypeSecret || !ts.open() {
			continue // a refused secret is not tried again
		}
		if at, ok := s.retryAt(ts, s.g.entries[k.Type][k.Name]); ok {
			wait = min(wait, at.Sub(now))
		}
	}
	return max(wait, 10*time.Millisecond)
}
