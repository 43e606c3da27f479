package ads

import (
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// record is a resource of which an Envoy has something else than what is served, or has to be told something. Of
// the others a stream keeps one bit: the Envoy has what is served.
type record struct {
	e *entry
	// have is the version that the Envoy has, nil for none. One that came from another server's life has no Body.
	have *translate.Resource
	// first is the oldest revision that is not on the Envoy; next the first one that came after the
	// version in flight was sent, 0 for none.
	first, next int64
	// dirty says that the Envoy has not (fully) got it.
	dirty bool
	// anew is a cluster that the Envoy has to be without before it gets it again.
	anew bool
	// force sends it even where the Envoy has this version; again asks for that once more after the
	// response in flight.
	force, again bool
	// flying says that it is in a response in flight, queued that it is among those to look at, and waits that it is
	// among those that wait for a slot.
	flying, queued, waits bool
	// awaits is the cluster that it waits for.
	awaits string
	// free is since when a cluster that is to be removed is unused.
	free time.Time
}

// unknown says of a version that it came from another server's life: its content is not known.
func unknown(r *translate.Resource) bool { return r.Body == nil }

// foreign says of endpoints that another server's life has sent them.
func foreign(r *translate.Resource) bool {
	return r != nil && r.Type == translate.TypeEndpoint && unknown(r)
}

// says tells of a route table whether it names something, or may.
func says(r *translate.Resource) bool {
	return r != nil && r.Type == translate.TypeScope && (unknown(r) || r.Says())
}

// adopted is a version that an Envoy says it has: a form of a resource, or what nothing is known of.
func adopted(k translate.Key, version string, of ...*translate.Resource) *translate.Resource {
	for _, r := range of {
		for r != nil {
			switch {
			case r.Version == version:
				return r
			case r.Surplus.Is(version):
				r = r.Surplus
			case r.Careful.Is(version):
				r = r.Careful
			case r.Plain.Is(version):
				r = r.Plain
			default:
				r = nil
			}
		}
	}
	return &translate.Resource{Key: k, Version: version}
}

// have is what the Envoy has of a resource, nil for nothing.
func (s *stream) have(e *entry) *translate.Resource {
	if e == nil {
		return nil
	}
	ts := s.types[e.Type]
	if rec := ts.records[e]; rec != nil {
		return rec.have
	}
	if ts.current.has(e.id) {
		return s.form(e.served)
	}
	return nil
}

// open makes a record of a resource; was is what the Envoy has where it has what is served.
func (s *stream) open(e *entry, was *translate.Resource) *record {
	ts := s.types[e.Type]
	if rec := ts.records[e]; rec != nil {
		return rec
	}
	rec := &record{e: e}
	if ts.records == nil {
		ts.records = map[*entry]*record{}
	}
	if ts.records[e] = rec; !ts.current.has(e.id) {
		e.refs++
		return rec
	}
	ts.current.clear(e.id)
	rec.have = s.form(was)
	s.claim(rec.have, 1)
	return rec
}

// tidy forgets a record that says nothing.
func (s *stream) tidy(rec *record) {
	s.sync()
	e := rec.e
	ts := s.types[e.Type]
	if rec.dirty || rec.flying || ts.records[e] != rec {
		return
	}
	served := s.form(e.served)
	switch {
	case rec.have == nil:
		s.close(ts, e)
		s.g.unref(e)
	case served != nil && rec.have.Version == served.Version && e.uniform():
		s.claim(rec.have, -1)
		s.speak(rec.have, -1)
		s.speak(served, 1)
		ts.current.set(e.id)
		s.close(ts, e)
	}
}

func (s *stream) close(ts *typeState, e *entry) {
	if delete(ts.records, e); len(ts.records) == 0 {
		ts.records = nil // a map does not shrink
	}
}

// hold replaces what the Envoy has.
func (s *stream) hold(rec *record, r *translate.Resource) {
	s.drop(rec)
	rec.have = r
	s.claim(r, 1)
	s.speak(r, 1)
}

func (s *stream) drop(rec *record) {
	if r := rec.have; r != nil {
		rec.have = nil
		s.claim(r, -1)
		s.speak(r, -1)
	}
}

// claim counts the clusters of a version that an Envoy has, where it is not what is served, or is being sent.
func (s *stream) claim(r *translate.Resource, by int) {
	for _, c := range r.Clusters {
		if s.uses == nil {
			s.uses = map[string]int{}
		}
		if s.uses[c] += by; s.uses[c] > by && s.uses[c] > 0 {
			continue
		}
		if s.uses[c] <= 0 {
			delete(s.uses, c)
		}
		s.lookAgain(translate.TypeCluster, c) // it may be about to be removed
	}
	if len(s.uses) == 0 {
		s.uses = nil // a map does not shrink
	}
	if unknown(r) && (r.Type == translate.TypeScope || r.Type == translate.TypeListener) {
		if s.unknown += by; s.unknown == 0 {
			s.lookAtAll(translate.TypeCluster)
		}
	}
}

// speak counts the route tables that the Envoy has or is being sent and that name something.
func (s *stream) speak(r *translate.Resource, by int) {
	if says(r) {
		s.says += by
	}
}

// used says whether the Envoy has, or is being sent, something that sends traffic to a cluster.
func (s *stream) used(cluster string) bool {
	if s.uses[cluster] > 0 || s.unknown > 0 {
		return true
	}
	for e := range s.g.users[cluster] {
		if s.types[e.Type].current.has(e.id) {
			return true
		}
	}
	return false
}

// mark notes that the Envoy has not got a resource since a revision.
func (s *stream) mark(rec *record, first int64) {
	if !rec.dirty {
		rec.dirty, rec.first, rec.next = true, first, 0
		rec.anew, rec.force, rec.again = false, false, false
	}
	s.enqueue(rec)
}

// clean notes that it has.
func (s *stream) clean(rec *record) {
	rec.dirty, rec.first, rec.next, rec.anew, rec.force, rec.again = false, 0, 0, false, false, false
	s.recount()
	s.tidy(rec)
}

// enqueue has a resource looked at.
func (s *stream) enqueue(rec *record) {
	s.recount()
	if !rec.queued {
		ts := s.types[rec.e.Type]
		rec.queued, ts.queue = true, append(ts.queue, rec)
	}
}

// take empties the queue of what is to be looked at.
func (ts *typeState) take() []*record {
	out := ts.queue[:0]
	for _, rec := range ts.queue {
		rec.queued = false
		if rec.dirty && !rec.flying && ts.records[rec.e] == rec {
			out = append(out, rec)
		}
	}
	ts.queue = nil
	return out
}

// lookAgain has a resource looked at that waits for something.
func (s *stream) lookAgain(t translate.Type, name string) {
	if rec := s.types[t].records[s.g.entries[t][name]]; rec != nil && rec.dirty {
		s.enqueue(rec)
	}
}

func (s *stream) lookAtAll(t translate.Type) {
	for _, rec := range s.types[t].records {
		if rec.dirty {
			s.enqueue(rec)
		}
	}
}

// await has a resource looked at when a cluster is ready.
func (s *stream) await(cluster string, rec *record) {
	if rec.awaits == cluster {
		return
	}
	if s.awaited == nil {
		s.awaited = map[string][]*record{}
	}
	rec.awaits = cluster
	s.awaited[cluster] = append(s.awaited[cluster], rec)
}

// arrived has what waits for a cluster or its endpoints looked at.
func (s *stream) arrived(cluster string) {
	s.lookAgain(translate.TypeCluster, cluster)
	waiting := s.awaited[cluster]
	if len(waiting) == 0 {
		return
	}
	if delete(s.awaited, cluster); len(s.awaited) == 0 {
		s.awaited = nil
	}
	for _, rec := range waiting {
		if rec.awaits == cluster {
			rec.awaits = ""
			s.enqueue(rec)
		}
	}
}

// slotsMoved has what waits for a slot looked at.
func (s *stream) slotsMoved() {
	for _, rec := range s.slotted {
		rec.waits = false
		s.enqueue(rec)
	}
	s.slotted = nil
}
