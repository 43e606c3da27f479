package ads

import (
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// next makes the next response that may be sent, or nil.
func (s *stream) next(now time.Time) *discoveryv3.DeltaDiscoveryResponse {
	s.reform()
	for _, t := range order {
		ts := s.types[t]
		if !ts.subscribed || ts.full() {
			continue
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

func (s *stream) response(t translate.Type, ts *typeState, items []item) *discoveryv3.DeltaDiscoveryResponse {
	msg := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: string(t), Nonce: s.newNonce()}
	// Envoy refuses a response that has a name twice.
	slices.Sort(ts.absent)
	msg.RemovedResources = slices.DeleteFunc(slices.Compact(ts.absent), func(name string) bool {
		return slices.ContainsFunc(items, func(it item) bool { return it.name == name })
	})
	ts.inflight = append(ts.inflight, &response{nonce: msg.Nonce, items: items})
	ts.answer, ts.absent = false, nil
	for _, it := range items {
		ts.flying[it.name] = true
		if it.resource == nil {
			msg.RemovedResources = append(msg.RemovedResources, it.name)
			if t == translate.TypeCluster {
				// A cluster of this name that comes back starts from nothing.
				delete(s.types[translate.TypeEndpoint].known, it.name)
				s.types[translate.TypeEndpoint].leaving[it.name] = true
			}
			continue
		}
		msg.Resources = append(msg.Resources, &discoveryv3.Resource{Name: it.name, Version: it.resource.Version, Resource: it.resource.Body})
		s.claim(holding(it.resource))
		if t == translate.TypeCluster {
			// Envoy warms a changed cluster afresh and waits for its endpoints, which it has already asked for.
			s.force(translate.Key{Type: translate.TypeEndpoint, Name: it.name}, it.revision)
		}
	}
	msg.SystemVersionInfo = msg.Nonce
	return msg
}

func (s *stream) force(k translate.Key, revision int64) {
	s.touch(k, revision)
	ts := s.types[k.Type]
	d := ts.dirty[k.Name]
	d.again = ts.flying[k.Name]
	d.force = true
}

// collect picks the resources of one response.
func (s *stream) collect(t translate.Type, ts *typeState, now time.Time) []item {
	for len(ts.groups) > 0 {
		group := ts.groups[0]
		ts.groups = ts.groups[1:]
		var items []item
		for _, name := range group {
			if d := ts.dirty[name]; d != nil {
				if it, ok := s.consider(t, ts, name, d, now); ok {
					items = append(items, it)
				}
			}
		}
		if len(items) > 0 {
			return items
		}
	}
	var proven, unjudged, removals []item
	var retry *item
	for name, d := range ts.dirty {
		it, ok := s.consider(t, ts, name, d, now)
		switch e := s.g.entries[t][name]; {
		case !ok:
			if retry == nil && s.mayRetry(ts, e, now) {
				retry = &item{name: name, resource: s.form(e.desired), revision: e.revision}
			}
		case it.resource == nil:
			removals = append(removals, it)
		case e.accepted():
			proven = append(proven, it)
		default:
			unjudged = append(unjudged, it)
		}
	}
	// What some Envoy has accepted goes first and together; what none has judged cannot spoil it.
	if len(proven) > 0 {
		return sorted(append(proven, removals...))
	}
	if len(unjudged)+len(removals) > 0 {
		return sorted(append(unjudged, removals...))
	}
	if retry != nil && !ts.answer {
		s.g.entries[t][retry.name].bad.at = now
		return []item{*retry}
	}
	return nil
}

func sorted(items []item) []item {
	slices.SortFunc(items, func(a, b item) int { return compare(a.name, b.name) })
	return items
}

// consider says whether a dirty resource may be sent now, and forgets dirt that is settled.
func (s *stream) consider(t translate.Type, ts *typeState, name string, d *dirt, now time.Time) (item, bool) {
	e := s.g.entries[t][name]
	eff := s.form(e.effective())
	have, has := ts.known[name]
	if eff == nil {
		if !has {
			if !e.quarantined() {
				delete(ts.dirty, name)
				if e != nil && e.desired == nil && !e.pinned && !s.elsewhere(t, name) {
					delete(s.g.entries[t], name)
				}
			}
			return item{}, false
		}
		if e != nil && e.bad != nil {
			return item{}, false // refused, and what the Envoy has is nobody's: leave it
		}
		return item{name: name}, s.mayRemove(t, ts, name, now)
	}
	if d.anew && has {
		return item{name: name}, true
	}
	if has && have.version == eff.Version && !d.force {
		if !e.quarantined() {
			delete(ts.dirty, name)
		}
		return item{}, false
	}
	if has && !d.force && have.outlives(eff) {
		delete(ts.dirty, name)
		return item{}, false
	}
	if !ts.wants(name) || (has && t == translate.TypeCluster && s.waits(name)) {
		return item{}, false
	}
	for _, c := range eff.Clusters {
		if !s.ready(c) {
			return item{}, false
		}
	}
	if !s.slotted(e, eff) || s.tooEarly(eff, has) {
		return item{}, false
	}
	return item{name: name, resource: eff, revision: e.revision}, true
}

// slotted says whether the Envoy's slots hold what a resource needs. What some Envoy has accepted before
// a slot's new content was refused goes with the old one.
func (s *stream) slotted(e *entry, r *translate.Resource) bool {
	if len(r.Needs) > 0 && !e.accepted() && s.g.blocker(r) != nil {
		return false
	}
	for _, k := range r.Needs {
		ts := s.types[k.Type]
		want := s.effective(k)
		if ts.names[k.Name] && want != nil && ts.known[k.Name].version != want.Version {
			return false
		}
	}
	return true
}

// elsewhere says whether another stream still has or gets the resource.
func (s *stream) elsewhere(t translate.Type, name string) bool {
	for o := range s.g.streams {
		if o != s && o.types[t].dirty[name] != nil {
			return true
		}
	}
	return false
}

// mayRetry says whether it is time to try a refused version again, alone.
func (s *stream) mayRetry(ts *typeState, e *entry, now time.Time) bool {
	if e == nil || e.desired == nil || e.bad == nil || !ts.wants(e.desired.Name) {
		return false
	}
	for _, c := range e.desired.Clusters {
		if !s.ready(c) {
			return false
		}
	}
	return !now.Before(e.bad.at.Add(s.g.opt.Retry << min(e.bad.tries, 5)))
}

// ready says whether traffic may be sent to a cluster: the Envoy has it, with its endpoints.
func (s *stream) ready(cluster string) bool {
	if _, has := s.types[translate.TypeCluster].known[cluster]; !has {
		return false
	}
	_, has := s.types[translate.TypeEndpoint].known[cluster]
	return has
}

// mayRemove says whether nothing speaks against a removal.
func (s *stream) mayRemove(t translate.Type, ts *typeState, name string, now time.Time) bool {
	if t == translate.TypeSecret && ts.known[name].byName {
		return true
	}
	switch t {
	case translate.TypeEndpoint, translate.TypeSecret, translate.TypeExtension, translate.TypeRuntime:
		// They go with what names them: the Envoy unsubscribes.
		delete(ts.dirty, name)
		return false
	}
	if t != translate.TypeCluster {
		return true
	}
	scopes := s.types[translate.TypeScope]
	if s.uses[name] > 0 || s.unknown > 0 || (!scopes.subscribed && len(s.g.entries[translate.TypeListener]) > 0) {
		delete(s.free, name)
		return false
	}
	since, counted := s.free[name]
	if !counted {
		since = now
		s.free[name] = now
	}
	return !now.Before(since.Add(s.g.opt.Linger))
}

// nextTimer is how long nothing happens by itself.
func (s *stream) nextTimer(now time.Time) time.Duration {
	wait := time.Hour
	for name, since := range s.free {
		if s.types[translate.TypeCluster].dirty[name] == nil {
			delete(s.free, name)
			continue
		}
		wait = min(wait, since.Add(s.g.opt.Linger).Sub(now))
	}
	for _, t := range order {
		if t == translate.TypeSecret {
			continue // a refused one is not tried again
		}
		for name := range s.types[t].dirty {
			if e := s.g.entries[t][name]; e != nil && e.bad != nil {
				wait = min(wait, e.bad.at.Add(s.g.opt.Retry<<min(e.bad.tries, 5)).Sub(now))
			}
		}
	}
	return max(wait, 10*time.Millisecond)
}
