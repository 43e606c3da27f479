package ads

import (
	"strconv"
	"time"

	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// plan is what one Envoy has of a table, and what may be sent to it now. It takes the Envoy's requests, and makes the
// responses; who holds it sends them. Like its table it belongs to the gateway's lock.
type plan struct {
	t *table
	// linger and retry are those of [Options].
	linger, retry time.Duration
	types         map[translate.Type]*typePlan
	// order are the same, as they are looked at for something to send.
	order []*typePlan

	// runtime says that the Envoy follows the gateway's runtime (RTDS), and emptyFilters that its listeners take an
	// empty chain as an ECDS filter config; logFile that there is a place for the access log's file.
	runtime, emptyFilters, logFile bool
	// place is where the Envoy is, the zero one where it does not say.
	place locality.Place
	// overLimit says that the Envoy has no seat under its gateway's license.
	overLimit bool
	// startedEmpty says that the Envoy has come without any listener, and so without routes.
	startedEmpty bool

	// at is the last change that it has looked at.
	at *change
	// uses counts, by cluster, the scopes and listeners that send traffic there and that the Envoy has, or may have when
	// it has answered, in another version than the one that is served: users of the served ones are the table's.
	// unknownUses counts those of them whose clusters are not known.
	uses        map[string]int
	unknownUses int
	// perRoute counts the route tables that the Envoy has, or is being sent, by what they set per route.
	perRoute settingCounts
	// awaitCluster are the records that wait for a cluster, by its name, and awaitFilters those that wait for ECDS filter
	// configs.
	awaitCluster map[string][]*record
	awaitFilters []*record
	// unused are the clusters that are to be removed and are unused, the first one first.
	unused []lingering
	// missing is what [plan.applied] found: the first revision that the Envoy lacks. It is good until the table's
	// generation is another.
	missing, generation int64
	nonce               uint64
	left                bool
}

// typePlan is what a plan knows of one type.
type typePlan struct {
	*rules
	// all are the table's entries of the type.
	all *typeTable
	// subscribed says that the Envoy has sent a request of the type, and unlisted that what it lacks has not been noted
	// yet.
	subscribed, unlisted bool
	// names are the names that it has asked for, and current those of which it has what is served.
	names, current ids
	// records are of what else it has, and of all that it has to be told of.
	records map[*entry]*record
	// queue are the pending records to look at: what they wait for may have come.
	queue []*record
	// inflight are the responses that the Envoy has not answered.
	inflight []*response
	// groups are sent one after the other, each by itself: the parts of a rejected response.
	groups [][]*entry
	// answer says that a response is due even where there is nothing to say.
	answer bool
	// lastRejected are the versions that the Envoy has rejected last, by name. It would ACK the same content now, and not
	// use it.
	lastRejected map[string]string
	// absent are names that were asked for and do not exist.
	absent []string
	// removing are endpoints whose cluster is being removed: the Envoy will forget them, and ask again if the cluster
	// comes back. What is sent in between it ACKs and drops.
	removing map[string]bool
	// aliases are the names that have no secret of their own, the oldest first. aliasesDue are those to be sent, and
	// aliasesSent those in flight.
	aliases     []alias
	aliasesDue  []string
	aliasesSent map[string]bool
}

// response is what an Envoy is sent.
type response struct {
	typ   translate.Type
	nonce string
	items []item
	// absent are names that are said not to exist, besides the items that are removed.
	absent []string
}

func newPlan(t *table, linger, retry time.Duration) *plan {
	p := &plan{t: t, linger: linger, retry: retry, types: map[translate.Type]*typePlan{}}
	for _, r := range allRules {
		tp := &typePlan{rules: r, all: t.types[r.typ], unlisted: true}
		p.types[r.typ], p.order = tp, append(p.order, tp)
	}
	return p
}

// connected says that the Envoy is.
func (p *plan) connected() bool { return !p.left }

// leave forgets everything of an Envoy that is gone.
func (p *plan) leave() {
	p.left = true
	for _, tp := range p.order {
		for e := range tp.records {
			p.t.unref(e)
		}
		for _, set := range []ids{tp.names, tp.current} {
			for i := range set.all {
				p.t.unref(tp.all.byID[i])
			}
		}
	}
}

// restart takes a revision below the last one: what is pending counts as its own.
func (p *plan) restart(revision int64) {
	p.sync()
	for _, tp := range p.order {
		for _, rec := range tp.records {
			rec.first, rec.next = min(rec.first, revision), min(rec.next, revision)
		}
	}
	p.recount()
}

// lag is how many changes the plan has not looked at.
func (p *plan) lag() int64 { return p.t.tail.number - p.at.number }

// list notes what an Envoy lacks that has just connected: everything except the versions that it has said it has.
func (p *plan) list(tp *typePlan) {
	tp.unlisted = false
	for _, e := range tp.all.byID {
		if p.lacks(tp, e) {
			p.setPending(p.open(e, nil), 1)
		}
	}
}

// lacks says whether an Envoy that has come has to be told of a resource.
func (p *plan) lacks(tp *typePlan, e *entry) bool {
	if e == nil || e.gone() || tp.current.has(e.id) || tp.records[e] != nil {
		return false
	}
	return !tp.onDemand || tp.names.has(e.id) || (e.desired != nil && e.desired.Carrier != "")
}

// variant is a resource as this Envoy gets it.
func (p *plan) variant(r *translate.Resource) *translate.Resource {
	switch {
	case r == nil:
		return nil
	case r.Located != nil:
		return r.At(p.place)
	case p.overLimit && r.OverLimit != nil:
		return r.OverLimit
	case r.PerRoute != nil && p.mayHavePerRoute(r.Reads()):
		return r.PerRoute
	case r.Plain != nil && !p.types[r.Type].latest(p):
		return r.Plain
	}
	return r
}

// served is what is served to this Envoy, nil for nothing.
func (p *plan) served(k translate.Key) *translate.Resource { return p.variant(p.t.served(k)) }

// mayHavePerRoute says whether the Envoy may have routes that set one of these per route, or get some in place of
// rejected ones.
func (p *plan) mayHavePerRoute(one translate.RouteSettings) bool {
	return p.perRoute.any(one) || (!p.startedEmpty && !p.types[translate.TypeScope].subscribed) ||
		p.t.setsPerRoute()&one != 0
}

// tooEarly says whether a filter config has to wait until the Envoy has other routes: one that takes the place of what
// the routes that it has still need.
func (p *plan) tooEarly(r *translate.Resource, has bool) bool {
	return has && r.AfterRoutes && p.mayHavePerRoute(r.Protects())
}

// lookForVariants has resources looked at again whose other variant may be due: any message may have changed what it
// depends on.
func (p *plan) lookForVariants() {
	for _, tp := range p.order {
		if !tp.hasVariants {
			continue
		}
		for e, rec := range tp.records {
			switch r := p.variant(e.served); {
			case rec.pending:
				p.enqueue(rec)
			case r != nil && e.served.PerRoute != nil && rec.has != nil && rec.has.Version != r.Version:
				p.setPending(rec, p.t.revision)
			}
		}
	}
}

// setOverLimit gives the Envoy the variants for those with a seat, or without one.
func (p *plan) setOverLimit(overLimit bool) {
	p.sync()
	for _, tp := range p.order {
		if !tp.hasVariants {
			continue
		}
		for _, e := range tp.all.byID {
			if e != nil && e.served != nil && e.served.OverLimit != nil {
				p.touch(e, e.served, p.t.revision, false) // while the variant that the Envoy has is known
			}
		}
	}
	p.overLimit = overLimit
	p.recount()
}

// sync looks at the changes since the last time.
func (p *plan) sync() {
	var after []*change
	for c := p.at.next; c != nil; c = c.next {
		p.at = c
		if c.entry.id < 0 {
			continue // it was forgotten: no Envoy had anything to do with it
		}
		p.touch(c.entry, c.was, c.revision, c.relook)
		if p.types[c.entry.Type].changed != nil {
			after = append(after, c)
		}
	}
	for _, c := range after { // what else follows depends on what the Envoy has of other resources, which is known now
		tp := p.types[c.entry.Type]
		tp.changed(p, tp, c)
	}
}

// touch notes that a revision changed a resource, or that it is to be looked at again. An Envoy that was up to date
// until now has was.
func (p *plan) touch(e *entry, was *translate.Resource, revision int64, relook bool) {
	tp := p.types[e.Type]
	if !tp.current.has(e.id) && tp.records[e] == nil && (tp.unlisted || !p.lacks(tp, e)) {
		return // it has nothing of it, and lacks nothing of it now
	}
	rec := p.open(e, was)
	if !relook && rec.pending && rec.next == 0 && rec.inFlight {
		rec.next = revision
		p.recount()
		return
	}
	p.setPending(rec, revision)
}

// wants says whether the Envoy follows a resource.
func (tp *typePlan) wants(e *entry) bool {
	return (tp.wildcard && tp.subscribed) || (tp.names.has(e.id) && !tp.removing[e.Name])
}

// open says whether another response of a type may be sent, before those in flight are answered.
func (tp *typePlan) open() bool { return tp.subscribed && len(tp.inflight) < tp.window }

func (p *plan) newNonce() string {
	p.nonce++
	return strconv.FormatUint(p.nonce, 10)
}
