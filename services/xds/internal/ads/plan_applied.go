package ads

import (
	"math"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// applied is the last revision that the Envoy serves in full. It does not wait for the removal of a cluster, which no
// request can tell, and not for a rejected version, in whose place the last good one is served: that is reported as a
// rejection.
func (p *plan) applied() int64 {
	if p.generation != p.t.generation {
		p.generation, p.missing = p.t.generation, p.firstMissing()
	}
	behind := p.missing
	if c := p.at.next; c != nil { // it has not looked at it yet
		behind = min(behind, c.revision)
	}
	return max(min(p.t.revision, behind-1), 0)
}

// recount has [plan.applied] look again.
func (p *plan) recount() { p.generation = 0 }

// firstMissing is the first revision that the Envoy lacks something of.
func (p *plan) firstMissing() int64 {
	first := int64(math.MaxInt64)
	for _, tp := range p.order {
		for _, rec := range tp.records {
			if rec.pending && rec.first < first && p.waitedFor(tp, rec) {
				first = rec.first
			}
		}
		if !tp.unlisted || first <= 1 {
			continue
		}
		for _, e := range tp.all.byID {
			if p.lacks(tp, e) && p.waitedFor(tp, &record{entry: e}) {
				first = 1
				break
			}
		}
	}
	return first
}

// waitedFor says whether the Envoy counts as behind while a resource is pending.
func (p *plan) waitedFor(tp *typePlan, rec *record) bool {
	e, has := rec.entry, rec.has
	version := p.variant(e.served)
	switch {
	case version == nil && has == nil && !rec.inFlight:
		return false // it never had it, and needs it no more; or it was rejected, without a predecessor
	case version == nil && e.rejection != nil:
		return false // it was rejected, and the Envoy keeps what an earlier process has sent
	case e.bisection.searching() && tp.wants(e):
		return true // what is served may be another in a moment
	case version != nil && has != nil && has.Version == version.Version && !rec.resend:
		return false // it has what is served in place of what was rejected
	}
	return tp.waitedFor(p, tp, rec, version)
}

func waitedCluster(p *plan, _ *typePlan, rec *record, version *translate.Resource) bool {
	return version != nil && (rec.has == nil || !p.waitsForEndpoints(rec.entry.Name))
}

func waitedEndpoints(p *plan, _ *typePlan, rec *record, version *translate.Resource) bool {
	return version != nil && !keepsItsOwn(rec.has, version) &&
		p.t.served(translate.Key{Type: translate.TypeCluster, Name: rec.entry.Name}) != nil
}

func waitedSecret(p *plan, tp *typePlan, rec *record, version *translate.Resource) bool {
	if version == nil {
		return rec.has != nil && rec.has.ByName
	}
	return tp.wants(rec.entry) || p.carried(version)
}

func waitedIfWanted(p *plan, tp *typePlan, rec *record, version *translate.Resource) bool {
	return version != nil && tp.wants(rec.entry) && !p.tooEarly(version, rec.has != nil)
}

func waitedUnlessBlocked(p *plan, _ *typePlan, _ *record, version *translate.Resource) bool {
	return version == nil || p.t.blocker(version) == nil
}

// lacking is what the Envoy lacks of the oldest revision that it has not applied, and whether that is on its way.
func (p *plan) lacking() (k translate.Key, sent bool) {
	var oldest int64
	for _, tp := range p.order {
		for e, rec := range tp.records {
			if !rec.pending || (k.Name != "" && (rec.first > oldest || (rec.first == oldest && (sent || !rec.inFlight)))) {
				continue
			}
			if p.waitedFor(tp, rec) {
				k, oldest, sent = e.Key, rec.first, rec.inFlight
			}
		}
	}
	if c := p.at.next; k.Name == "" && c != nil { // it has not looked at it yet
		return c.entry.Key, false
	}
	return k, sent
}
