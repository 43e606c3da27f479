package ads

import (
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// Secrets are not sent as the other types are.
//
// Envoy keeps the content of a secret before it tries it, and compares what it is sent with that: a rejected content
// that is sent again is ACKed, and not used. So each secret goes in a response of its own, that the one at fault need
// not be looked for by sending it again; several such responses are in flight at once. A rejected secret is not tried
// again, for its content alone decides. The last good one is sent in its place at once: Envoy would otherwise build
// every context that the secret is part of with the rejected one. Where none is good, the Envoy is told that there is
// no such secret: a handshake that waits for it fails at once, and no listener waits.

// pickSecret chooses the next secret that may be sent, and the removals up to it.
func (p *plan) pickSecret(tp *typePlan, now time.Time) []item {
	var removals []item
	for len(tp.aliasesDue) > 0 {
		name := tp.aliasesDue[0]
		tp.aliasesDue = tp.aliasesDue[1:]
		if r := p.sendAlias(tp, name); r != nil {
			return append(removals, item{name: name, resource: r})
		}
	}
	for len(tp.queue) > 0 {
		rec := tp.queue[0]
		tp.queue = tp.queue[1:]
		rec.queued = false
		e := rec.entry
		if !rec.pending || rec.inFlight || tp.records[e] != rec || tp.aliasesSent[e.Name] || p.sharedInFlight(tp, e.Name) {
			continue
		}
		it, ok := p.carryOut(rec, p.decide(tp, rec, now), now)
		switch {
		case ok && it.resource != nil:
			return append(removals, it)
		case ok:
			removals = append(removals, it)
		case e.quarantined() && e.served == nil && tp.wants(e) && rec.has == nil:
			tp.absent = append(tp.absent, e.Name)
		}
	}
	return removals
}

// sharedInFlight says whether a secret of the same TLS context is in flight: its answer says what this one's will
// mean.
func (p *plan) sharedInFlight(tp *typePlan, name string) bool {
	for other := range p.t.sharing[name] {
		if rec := tp.records[p.t.secret(other)]; tp.aliasesSent[other] || (rec != nil && rec.inFlight) {
			return true
		}
	}
	return false
}

// secretAcked notes what the ACK of a secret says of those in the same TLS context: they are used with it.
func (p *plan) secretAcked(tp *typePlan, it item) {
	if tp.aliased(it.name) >= 0 {
		tp.aliasesDue = append(tp.aliasesDue, it.name) // it may have been taken back and asked for anew since
	}
	p.lookAgain(translate.TypeSecret, it.name) // it may have a secret of its own now
	for other := range p.t.sharing[it.name] {
		p.lookAgain(translate.TypeSecret, other) // it may have waited
		if !p.t.settleDispute(other) {
			continue
		}
		e := p.t.secret(other)
		if has := p.has(e); e != nil && e.desired != nil && has != nil && has.Version == e.desired.Version {
			p.accept(e.desired, e.revision)
		}
	}
}

// rejectSecret blames the NACK of a secret on it, or on another one of its TLS context whose content shows a fault.
func (p *plan) rejectSecret(tp *typePlan, it item, reason string, now time.Time) {
	culprit := p.t.atFault(it.resource)
	if i := tp.aliased(it.name); i >= 0 {
		if of := p.t.served(translate.Key{Type: translate.TypeSecret, Name: tp.aliases[i].of}); of.Is(it.resource.Version) {
			p.reject(of, reason, now)
		}
		tp.dropAlias(it.name)
		tp.absent = append(tp.absent, it.name)
		return
	}
	if it.entry == nil { // the alias has been taken back since
		p.lookAgain(translate.TypeSecret, it.name)
		return
	}
	if culprit != nil {
		// The Envoy has it, and uses it as soon as the other one is replaced.
		rec := tp.records[it.entry]
		p.setHas(rec, it.resource)
		p.settle(rec)
		if culprit.rejection == nil {
			p.reject(culprit.desired, reason, now)
		}
		p.t.dispute(it.resource, it.revision, culprit, reason)
		delete(tp.lastRejected, it.name)
		p.restoreSecret(tp, culprit)
		return
	}
	p.reject(it.resource, reason, now)
	p.restoreSecret(tp, it.entry)
	for other := range p.t.sharing[it.name] {
		p.lookAgain(translate.TypeSecret, other)
	}
}

// restoreSecret sends what is served in place of a secret that the Envoy has rejected.
func (p *plan) restoreSecret(tp *typePlan, e *entry) {
	if !e.quarantined() {
		return
	}
	if e.served == nil {
		if p.has(e) != nil {
			rec := p.record(e)
			p.drop(rec)
			p.closeIfIdle(rec)
		}
		tp.absent = append(tp.absent, e.Name)
		return
	}
	rec := p.record(e)
	p.setPending(rec, e.revision)
	rec.resend = true
}

// secretChanged takes back the aliases of what has changed, and the alias of a name that has a secret of its own now.
func (p *plan) secretChanged(tp *typePlan, c *change) {
	if c.relook {
		return
	}
	tp.dropAlias(c.entry.Name)
	for i := len(tp.aliases) - 1; i >= 0; i-- {
		if a := tp.aliases[i]; a.of == c.entry.Name {
			tp.absent = append(tp.absent, a.name)
			tp.dropAlias(a.name)
		}
	}
	p.prefetch(c.entry, c.revision)
}

// secretUnsubscribed forgets a name. It may have got a secret since the Envoy was told that there is none.
func (p *plan) secretUnsubscribed(tp *typePlan, e *entry) {
	tp.dropAlias(e.Name)
	p.prefetch(e, p.t.revision)
}

// prefetch has an Envoy ask for a secret that every Envoy is to have before a client needs it, where it does not
// because it was told before that there is none. It asks when the secret's carrier comes, and only then; one that it
// has it does not take again, so that it has to be without the carrier first.
func (p *plan) prefetch(e *entry, revision int64) {
	tp := p.types[e.Type]
	if e.served == nil || !p.carried(e.served) || !tp.subscribed || tp.wants(e) {
		return
	}
	carrier := p.t.find(translate.TypeCluster, e.served.Carrier)
	has := p.has(carrier)
	if carrier.served == nil || has == nil || has.Version != p.variant(carrier.served).Version {
		return // it will ask
	}
	rec := p.record(carrier)
	if rec.inFlight {
		return // it will ask
	}
	p.setPending(rec, revision)
	rec.removeFirst = true
}

// carried says whether every Envoy asks for a secret before a client does.
func (p *plan) carried(r *translate.Resource) bool {
	if r.Carrier == "" || !p.types[translate.TypeCluster].subscribed {
		return false
	}
	e := p.t.find(translate.TypeCluster, r.Carrier)
	return e != nil && e.desired != nil && !e.quarantined()
}
