package ads

import (
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// What may be sent now is decided by functions that change nothing; [plan.carryOut] then does what was decided.

// decision is what is to be done with a pending resource now.
type decision struct {
	action action
	// version to send.
	version *translate.Resource
	// cluster that is waited for.
	cluster string
}

type action int

const (
	// stay: nothing can be done before something else happens, which has the resource looked at again.
	stay action = iota
	// settle: the Envoy has what it is to have.
	settle
	// send the version, or the removal.
	send
	sendRemoval
	// waitForCluster: it may be sent when a cluster is there with its endpoints.
	waitForCluster
	// waitForFilters: it may be sent when the Envoy has the ECDS filter configs that it needs.
	waitForFilters
	// stillUsed: a cluster that is to be removed is in use. beginLinger: it no longer is, and stays for a while.
	stillUsed
	beginLinger
)

// decide says what is to be done with a pending resource.
func (p *plan) decide(tp *typePlan, rec *record, now time.Time) decision {
	e := rec.entry
	version := p.variant(e.served)
	if version == nil {
		return p.decideRemoval(tp, rec, now)
	}
	has := rec.has != nil
	settled := decision{action: settle}
	if e.quarantined() {
		settled.action = stay // it stays pending, so that the rejected version is tried again
	}
	switch {
	case has && rec.removeFirst:
		return decision{action: sendRemoval}
	case has && !rec.resend && rec.has.Version == version.Version:
		return settled
	case has && !rec.resend && keepsItsOwn(rec.has, version):
		return decision{action: settle}
	case !tp.wants(e), has && tp.mustWait != nil && tp.mustWait(p, e.Name):
		return decision{action: stay}
	}
	for _, c := range version.Clusters {
		if !p.ready(c) {
			return decision{action: waitForCluster, cluster: c}
		}
	}
	switch {
	case !p.filtersReady(e, version):
		return decision{action: waitForFilters}
	case p.tooEarly(version, has):
		return decision{action: stay}
	}
	return decision{action: send, version: version}
}

// decideRemoval says what is to be done with a pending resource of which nothing is served.
func (p *plan) decideRemoval(tp *typePlan, rec *record, now time.Time) decision {
	e := rec.entry
	switch {
	case rec.has == nil && e.quarantined():
		return decision{action: stay}
	case rec.has == nil:
		return decision{action: settle}
	case e.rejection != nil:
		return decision{action: stay} // rejected, and what the Envoy has is nobody's: it may keep it
	case tp.removal == removedAtOnce, rec.has.ByName:
		return decision{action: sendRemoval}
	case tp.removal == removedWithUser:
		return decision{action: settle}
	case !p.removable(e.Name):
		return decision{action: stillUsed}
	case rec.unusedSince.IsZero():
		return decision{action: beginLinger}
	case now.Before(rec.unusedSince.Add(p.linger)):
		return decision{action: stay}
	}
	return decision{action: sendRemoval}
}

// removable says whether no request can need a cluster any more, once those in flight have ended. Before the Envoy has
// said which route tables it has, all that listeners lead to may be used.
func (p *plan) removable(cluster string) bool {
	return !p.used(cluster) && (p.types[translate.TypeScope].subscribed || p.t.types[translate.TypeListener].served == 0)
}

// carryOut does what was decided. It returns what is to be sent, if that is something.
func (p *plan) carryOut(rec *record, d decision, now time.Time) (item, bool) {
	e := rec.entry
	switch d.action {
	case send:
		return item{entry: e, name: e.Name, resource: d.version, revision: e.revision}, true
	case sendRemoval:
		return item{entry: e, name: e.Name, revision: e.revision}, true
	case settle:
		p.clearPending(rec)
	case waitForCluster:
		p.await(d.cluster, rec)
	case waitForFilters:
		if !rec.awaitsFilters {
			rec.awaitsFilters, p.awaitFilters = true, append(p.awaitFilters, rec)
		}
	case stillUsed:
		rec.unusedSince = time.Time{}
	case beginLinger:
		rec.unusedSince = now
		p.unused = append(p.unused, lingering{rec, now})
	case stay:
	}
	return item{}, false
}

// ready says whether traffic may be sent to a cluster: the Envoy has it, with its endpoints.
func (p *plan) ready(cluster string) bool {
	return p.has(p.t.find(translate.TypeCluster, cluster)) != nil &&
		p.has(p.t.find(translate.TypeEndpoint, cluster)) != nil
}

// filtersReady says whether the Envoy has the ECDS filter configs that a resource needs. A version that some Envoy has
// ACKed before a filter config was rejected goes with the last good one of that.
func (p *plan) filtersReady(e *entry, r *translate.Resource) bool {
	if len(r.Needs) > 0 && !e.proven() && p.t.blocker(r) != nil {
		return false
	}
	for _, k := range r.Needs {
		needed := p.t.find(k.Type, k.Name)
		if needed == nil || needed.served == nil || !p.types[k.Type].names.has(needed.id) {
			continue
		}
		if has := p.has(needed); has == nil || has.Version != p.variant(needed.served).Version {
			return false
		}
	}
	return true
}

// retryAt is when a rejected version may be tried again, alone; not ok where that depends on more than time.
func (p *plan) retryAt(tp *typePlan, e *entry) (at time.Time, ok bool) {
	if e == nil || e.desired == nil || e.rejection == nil || e.bisection != nil || !tp.wants(e) {
		return at, false
	}
	if rec := tp.records[e]; rec == nil || !rec.pending {
		return at, false
	}
	for _, c := range e.desired.Clusters {
		if !p.ready(c) {
			return at, false
		}
	}
	return e.rejection.retryAt(p, p.retry), true
}

// keepsItsOwn says whether an Envoy has endpoints of which this server knows only a part: it has them from an earlier
// process, whose state this one has lost, and a DNS name does not resolve. It keeps what it has.
func keepsItsOwn(has, r *translate.Resource) bool { return has != nil && unknown(has) && r.Partial }

// waitsForEndpoints says whether a changed cluster has to wait. Its warming would wait for endpoints, and what this
// server knows of them would take some away. Which ones an Envoy that comes back has it says after its clusters.
func (p *plan) waitsForEndpoints(cluster string) bool {
	if translate.IsCarrier(cluster) {
		return false // it has no endpoints
	}
	if r := p.served(translate.Key{Type: translate.TypeEndpoint, Name: cluster}); r != nil && !r.Partial {
		return false
	}
	has := p.has(p.t.find(translate.TypeEndpoint, cluster))
	return !p.types[translate.TypeEndpoint].subscribed || (has != nil && unknown(has))
}
