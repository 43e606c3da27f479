package ads

import (
	"errors"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// handle takes one request of the Envoy: a subscription, an ACK, a NACK, or several of these at once.
func (p *plan) handle(tp *typePlan, r *discoveryv3.DeltaDiscoveryRequest, now time.Time) error {
	var err error
	p.sync()
	p.recount()
	if sent := tp.answered(r.GetResponseNonce()); sent != nil {
		if e := r.GetErrorDetail(); e != nil {
			err = p.nacked(tp, sent, e.GetMessage(), now)
		} else {
			p.acked(tp, sent)
		}
	}
	p.subscribe(tp, r)
	p.filtersMoved()
	return err
}

// answered takes the response of a nonce out of those in flight; nil where there is none.
func (tp *typePlan) answered(nonce string) *response {
	i := slices.IndexFunc(tp.inflight, func(r *response) bool { return r.nonce == nonce })
	if i < 0 {
		return nil
	}
	r := tp.inflight[i]
	tp.inflight = slices.Delete(tp.inflight, i, i+1)
	for _, it := range r.items {
		if it.entry == nil {
			delete(tp.aliasesSent, it.name)
		} else {
			tp.records[it.entry].inFlight = false
		}
	}
	return r
}

// cameOverLimit says whether the Envoy comes back with a variant that those without a seat get.
func (p *plan) cameOverLimit(tp *typePlan, r *discoveryv3.DeltaDiscoveryRequest) bool {
	for name, version := range r.GetInitialResourceVersions() {
		s := p.t.served(translate.Key{Type: tp.typ, Name: name})
		if s != nil && s.OverLimit != nil && s.OverLimit.Version == version {
			return true
		}
	}
	return false
}

func (p *plan) subscribe(tp *typePlan, r *discoveryv3.DeltaDiscoveryRequest) {
	known := r.GetInitialResourceVersions()
	if !tp.subscribed {
		tp.subscribed, tp.answer = true, tp.wildcard
		for name, version := range known {
			p.adopt(tp, name, version)
		}
		if tp.firstRequest != nil {
			tp.firstRequest(p, len(known) == 0)
		}
	}
	for _, name := range r.GetResourceNamesSubscribe() {
		if !tp.wildcard && name != "*" {
			p.follow(tp, name, known[name] != "")
		}
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		p.unfollow(tp, name)
	}
}

// listenersRequested notes whether the Envoy has come without any.
func (p *plan) listenersRequested(empty bool) { p.startedEmpty = p.startedEmpty || empty }

// clustersMayGoOn has clusters looked at that may have waited for what the Envoy says that it has.
func (p *plan) clustersMayGoOn(bool) { p.lookAtAll(translate.TypeCluster) }

// follow takes a name that the Envoy asks for; said is whether it said what it has of it.
func (p *plan) follow(tp *typePlan, name string, said bool) {
	e := p.t.entry(translate.Key{Type: tp.typ, Name: name})
	if !tp.names.has(e.id) {
		tp.names.set(e.id)
		e.refs++
	}
	if e.rejection != nil {
		tp.setLastRejected(name, p.variant(e.rejection.Resource).Version) // perhaps by this Envoy, on another stream
	}
	delete(tp.removing, name)
	has, version := p.has(e), p.variant(e.served)
	if said && has != nil && version != nil && (has.Version == version.Version || keepsItsOwn(has, version)) {
		return
	}
	switch {
	case version != nil:
		rec := p.record(e)
		p.setPending(rec, e.revision)
		rec.resend = true
	case tp.onDemand && e.gone():
		p.addAlias(tp, name)
	case tp.absence == absentAlways, tp.absence == absentIfGone && e.gone():
		tp.absent = append(tp.absent, name)
	}
}

func (p *plan) unfollow(tp *typePlan, name string) {
	e := p.t.entry(translate.Key{Type: tp.typ, Name: name})
	delete(tp.removing, name)
	if p.has(e) != nil && !tp.wildcard {
		rec := p.record(e)
		p.drop(rec)
		p.closeIfIdle(rec)
	}
	if tp.names.has(e.id) {
		tp.names.clear(e.id)
		e.refs--
	}
	if tp.unsubscribed != nil {
		tp.unsubscribed(p, tp, e)
	}
	p.t.forget(e)
}

// endpointsUnsubscribed has their cluster looked at, which may have waited for them.
func (p *plan) endpointsUnsubscribed(_ *typePlan, e *entry) {
	p.lookAgain(translate.TypeCluster, e.Name)
}

// endpointsChanged has their cluster looked at, which may have waited for them.
func (p *plan) endpointsChanged(_ *typePlan, c *change) {
	p.lookAgain(translate.TypeCluster, c.entry.Name)
}

// filterConfigChanged has what waits for filter configs looked at.
func (p *plan) filterConfigChanged(*typePlan, *change) { p.filtersMoved() }

// adopt takes over what an Envoy says it has, from another stream or an earlier process of this server.
func (p *plan) adopt(tp *typePlan, name, version string) {
	if tp.onDemand && tp.all.byName[name] == nil {
		return // it is asked for, too
	}
	k := translate.Key{Type: tp.typ, Name: name}
	e := p.t.entry(k)
	p.variant(e.desired) // made for where the Envoy is, so that its version is known
	// It has ACKed it: an Envoy names only versions that it has taken.
	switch {
	case e.desired.Is(version) && (e.rejection != nil || !e.lastGood.Is(version)):
		p.accept(e.desired, e.revision)
	case e.bisection != nil && e.bisection.form.Is(version) && !e.lastGood.Is(version):
		p.accept(e.bisection.form, e.revision)
	}
	served := p.variant(e.served)
	if served != nil && served.Version == version && e.uniform() && tp.records[e] == nil && !tp.current.has(e.id) {
		tp.current.set(e.id)
		e.refs++
		p.countPerRoute(served, 1)
		if tp.adopted != nil && len(p.awaitCluster) > 0 {
			tp.adopted(p, name)
		}
		return
	}
	rec := p.record(e)
	p.setHas(rec, adopted(k, version, e.desired, e.served, e.lastGood)) // whichever variant it is
	switch served := p.variant(e.served); {
	case served != nil && served.Version == version:
		p.clearPending(rec)
	case tp.unlisted && !e.gone():
		p.setPending(rec, 1)
	default:
		p.setPending(rec, p.t.revision)
	}
	if tp.adopted != nil {
		tp.adopted(p, name)
	}
}

// accept notes that this Envoy has ACKed a version.
func (p *plan) accept(r *translate.Resource, revision int64) {
	p.t.accept(r, revision)
	if e := p.t.find(r.Type, r.Name); e != nil && e.bisection.searching() && e.bisection.form.Is(r.Version) {
		p.t.formAcked(e, p)
	}
	p.sync()
}

// reject notes that this Envoy has NACKed a version.
func (p *plan) reject(r *translate.Resource, reason string, now time.Time) {
	p.t.reject(p, r, reason, now)
	p.sync()
}

// setLastRejected notes that the Envoy has rejected a version.
func (tp *typePlan) setLastRejected(name, version string) {
	if tp.lastRejected == nil {
		tp.lastRejected = map[string]string{}
	}
	tp.lastRejected[name] = version
}

// acked takes the ACK of a response.
func (p *plan) acked(tp *typePlan, sent *response) {
	for _, it := range sent.items {
		rec := tp.records[it.entry]
		if it.resource == nil {
			p.drop(rec)
			rec.removeFirst = false
			p.settle(rec)
			continue
		}
		if tp.lastRejected[it.name] != it.resource.Version {
			delete(tp.lastRejected, it.name)
		}
		if it.entry != nil {
			p.accept(it.resource, it.revision)
			if !tp.wants(it.entry) {
				p.landed(it.resource)
				p.closeIfIdle(rec)
				continue // the Envoy has dropped it; if it wants it again, it asks again
			}
			p.setHas(rec, it.resource)
			p.landed(it.resource) // counted when it was sent, and again as what the Envoy has
			rec.resend, rec.resendAgain = rec.resendAgain, false
			p.settle(rec)
		}
		if tp.acked != nil {
			tp.acked(p, tp, it)
		}
	}
}

// clusterAcked has what waits for a cluster or its endpoints looked at.
func (p *plan) clusterAcked(_ *typePlan, it item) { p.clusterArrived(it.name) }

// landed takes back what was counted when a resource was sent.
func (p *plan) landed(r *translate.Resource) {
	p.countUses(r, -1)
	p.countPerRoute(r, -1)
}

// settle notes after an answer that a resource is no longer pending, or only since a later revision.
func (p *plan) settle(rec *record) {
	if !rec.pending {
		p.closeIfIdle(rec)
		return
	}
	e := rec.entry
	served := p.variant(e.served)
	same := served != nil && rec.has != nil && served.Version == rec.has.Version
	if (served == nil && rec.has == nil) || (same && !rec.resend) {
		if !e.quarantined() {
			p.clearPending(rec)
		}
		return
	}
	if rec.next != 0 {
		rec.first, rec.next = rec.next, 0
	}
	p.enqueue(rec)
}

// nacked takes the NACK of a response. At fault is its only resource, or one that its parts will show. Removals are
// never at fault; what else was in the response is sent again.
func (p *plan) nacked(tp *typePlan, sent *response, reason string, now time.Time) error {
	var upserts []item
	for _, it := range sent.items {
		rec := tp.records[it.entry]
		if it.resource == nil {
			if tp.removalRejected != nil {
				tp.removalRejected(p, it.name)
			}
			p.enqueue(rec)
			continue
		}
		upserts = append(upserts, it)
		if it.entry != nil {
			p.landed(it.resource)
			p.setPending(rec, it.revision)
		}
	}
	switch len(upserts) {
	case 0:
		for _, it := range sent.items { // asking again would go on for ever
			rec := tp.records[it.entry]
			p.drop(rec)
			p.clearPending(rec)
		}
		return errNothingSent
	case 1:
		tp.setLastRejected(upserts[0].name, upserts[0].resource.Version)
		tp.rejected(p, tp, upserts[0], reason, now)
	default:
		tp.groups = append(split(upserts, reason), tp.groups...)
	}
	return nil
}

// errNothingSent says that Envoy has rejected a response without resources.
var errNothingSent = errors.New("envoy refused a response without resources")

// rejectOne blames the only resource of a response.
func (p *plan) rejectOne(_ *typePlan, it item, reason string, now time.Time) {
	p.reject(it.resource, reason, now)
}

// clusterRemovalRejected notes that the removal of a cluster may not have been done.
func (p *plan) clusterRemovalRejected(name string) {
	delete(p.types[translate.TypeEndpoint].removing, name)
	p.lookAgain(translate.TypeEndpoint, name)
}

// split parts a rejected response: those that the text names each alone, the rest in halves.
func split(items []item, reason string) [][]*entry {
	var named, rest []*entry
	for _, it := range items {
		if len(named) < 8 && len(items) > 2 && mentions(reason, it.name) {
			named = append(named, it.entry)
		} else {
			rest = append(rest, it.entry)
		}
	}
	var out [][]*entry
	if len(named) > 0 {
		// The resources that Envoy did not name in its NACK are probably good: all of them go first.
		if len(rest) > 0 {
			out = append(out, rest)
		}
		for _, n := range named {
			out = append(out, []*entry{n})
		}
		return out
	}
	half := len(rest) / 2
	return append(out, rest[:half], rest[half:])
}

// mentions says whether a text has a name as a word of its own.
func mentions(text, name string) bool {
	for rest := text; ; {
		i := strings.Index(rest, name)
		if i < 0 {
			return false
		}
		before := i == 0 || !wordByte(rest[i-1])
		end := i + len(name)
		if before && (end == len(rest) || !wordByte(rest[end])) {
			return true
		}
		rest = rest[i+1:]
	}
}

func wordByte(c byte) bool {
	return c == '-' || c == '_' || c == '/' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
}
