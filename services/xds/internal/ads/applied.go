package ads

import (
	"math"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// applied is the revision that the Envoy serves in full. A removal of a cluster is not waited for:
// nobody can see it. Nor is what was refused: its last good version is served instead, and reported.
func (s *stream) applied() int64 {
	if s.epoch != s.g.epoch {
		s.epoch, s.missing = s.g.epoch, s.lacking()
	}
	behind := s.missing
	if n := s.at.next; n != nil { // it has not looked at it yet
		behind = min(behind, n.revision)
	}
	return max(min(s.g.revision, behind-1), 0)
}

// recount has [stream.applied] look again.
func (s *stream) recount() { s.epoch = 0 }

func (s *stream) lacking() int64 {
	first := int64(math.MaxInt64)
	for t, ts := range s.types {
		for _, rec := range ts.records {
			if rec.dirty && rec.first < first && s.counts(t, ts, rec) {
				first = rec.first
			}
		}
		if !ts.fresh || first <= 1 {
			continue
		}
		for _, e := range s.g.kinds[t].byID {
			if s.needs(ts, e) && s.counts(t, ts, &record{e: e}) {
				first = 1
				break
			}
		}
	}
	return first
}

func (s *stream) counts(t translate.Type, ts *typeState, rec *record) bool {
	e := rec.e
	eff := s.form(e.served)
	have := rec.have
	if eff == nil && have == nil && !rec.flying {
		return false // it never had it, and needs it no more; or it was refused, without a predecessor
	}
	if eff == nil && e.bad != nil {
		return false // it was refused, and the Envoy keeps what another life of this server has sent
	}
	if e.contained.judging() && ts.wants(e) {
		return true // what is served may be another in a moment
	}
	if eff != nil && have != nil && have.Version == eff.Version && !rec.force {
		return false // it has what is served in place of what was refused
	}
	switch t {
	case translate.TypeCluster:
		return eff != nil && (have == nil || !s.waits(e.Name))
	case translate.TypeEndpoint:
		return eff != nil && !outlives(have, eff) && s.g.effective(translate.Key{Type: translate.TypeCluster, Name: e.Name}) != nil
	case translate.TypeSecret:
		if eff == nil {
			return have != nil && have.ByName
		}
		return ts.wants(e) || s.carried(eff)
	case translate.TypeExtension, translate.TypeRuntime:
		return eff != nil && ts.wants(e) && !s.tooEarly(eff, have != nil)
	default:
		return eff == nil || s.g.blocker(eff) == nil
	}
}
