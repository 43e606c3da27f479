package ads

import (
	"cmp"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// entry is one resource as it should be, and what is known of it.
type entry struct {
	translate.Key
	// id is its number among those of its type, for the streams' [ids]. refs counts the streams that have it, have
	// asked for it, or have something to do with it: without any, what is not desired is forgotten.
	id, refs int
	// served is what [entry.effective] was at the last [Gateway.changed].
	served *translate.Resource

	desired *translate.Resource // nil: it is to be removed
	good    *translate.Resource // the last version that an Envoy has accepted
	bad     *Refusal            // set where the desired version was refused
	// contained is what is served of a refused slot, nil where it is not divided; parts are the policies that Envoys
	// have taken of a slot, each with its digest.
	contained *containment
	parts     map[string]string
	// pinned keeps the good version although nothing is desired; held, although the desired one is not at
	// fault: what it relies on was refused.
	pinned, held bool
	// revision that changed desired last, and the last one whose version the good one is known to be.
	revision, goodRevision int64
}

// effective is what is to be served: the desired version, or in its place the last good one.
func (e *entry) effective() *translate.Resource {
	switch {
	case e == nil:
		return nil
	case e.desired == nil:
		if e.pinned {
			return e.good
		}
		return nil
	case e.contained != nil:
		return e.contained.form
	case e.bad != nil, e.held && e.good != nil:
		return e.good
	default:
		return e.desired
	}
}

// gone says that there is no such resource: it may be known because an Envoy has it, or has asked for it.
func (e *entry) gone() bool { return e == nil || (e.desired == nil && !e.pinned) }

// uniform says whether what is served has one form for every Envoy, for as long as it is connected.
func (e *entry) uniform() bool {
	return e.served != nil && e.served.Careful == nil && e.served.Surplus == nil
}

// lastGood is the revision of the good version, 0 where there is none.
func (e *entry) lastGood() int64 {
	if e.good == nil {
		return 0
	}
	return e.goodRevision
}

// quarantined says whether the desired version is not what is served. A slot without the policies that are known to be
// at fault is the desired version, as far as there is any.
func (e *entry) quarantined() bool {
	return e != nil && e.desired != nil && (e.held || e.bad != nil && (e.contained == nil || !e.contained.judged))
}

// accepted says whether some Envoy has taken the version that is served.
func (e *entry) accepted() bool {
	return e != nil && e.served != nil && e.good != nil && e.good.Version == e.served.Version
}

// change is one link of a gateway's log: each stream follows it at its own pace, and what all have followed is
// garbage. So what an Envoy that lags has costs nothing until the stream looks, and then only what differs.
type change struct {
	e *entry
	// was is what was served before.
	was *translate.Resource
	// revision that changed it; again says that it is only to be looked at again since.
	revision int64
	again    bool
	number   int64
	next     *change
}

// kind are the entries of one type, by number.
type kind struct {
	byID []*entry
	free []int
	// served counts those that are.
	served int
}

// entry finds an entry, or makes one that is [entry.gone].
func (g *Gateway) entry(k translate.Key) *entry {
	if e := g.entries[k.Type][k.Name]; e != nil {
		return e
	}
	e, all := &entry{Key: k}, g.kinds[k.Type]
	if n := len(all.free); n > 0 {
		e.id, all.free = all.free[n-1], all.free[:n-1]
		all.byID[e.id] = e
	} else {
		e.id = len(all.byID)
		all.byID = append(all.byID, e)
	}
	g.entries[k.Type][k.Name] = e
	return e
}

// unref takes one reference away.
func (g *Gateway) unref(e *entry) {
	e.refs--
	g.forget(e)
}

// forget drops an entry that nobody needs any more.
func (g *Gateway) forget(e *entry) {
	if e.refs > 0 || !e.gone() || e.id < 0 {
		return
	}
	all := g.kinds[e.Type]
	delete(g.entries[e.Type], e.Name)
	all.byID[e.id], all.free = nil, append(all.free, e.id)
	e.id = -1
}

// changed tells every stream that an entry is another one now; call it after each change of what is served. It is
// by a revision, or 0 where it has to be looked at only.
func (g *Gateway) changed(e *entry, revision int64) {
	g.epoch++
	n := &change{e: e, was: e.served, revision: cmp.Or(revision, g.revision), again: revision == 0, number: g.tail.number + 1}
	g.tail.next, g.tail = n, n
	now := e.effective()
	if now == e.served {
		return
	}
	if e.served != nil {
		g.kinds[e.Type].served--
		for _, c := range e.served.Clusters {
			delete(g.users[c], e)
			if len(g.users[c]) == 0 {
				delete(g.users, c)
			}
		}
	}
	if now != nil {
		g.kinds[e.Type].served++
		for _, c := range now.Clusters {
			if g.users[c] == nil {
				g.users[c] = map[*entry]struct{}{}
			}
			g.users[c][e] = struct{}{}
		}
	}
	e.served = now
}
