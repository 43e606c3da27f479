package ads

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// table is what the Envoys of a gateway should have, and what is known of it by their ACKs and NACKs. It knows no
// streams, has no lock (it belongs to that of its gateway) and does no I/O. What it decides to serve otherwise it adds
// to a log of changes, which every plan follows at its own pace.
type table struct {
	types map[translate.Type]*typeTable
	// order are the same, as they are looked at for something to send.
	order    []*typeTable
	revision int64
	// tail is the last change; generation counts whatever may change what a plan has found out.
	tail       *change
	generation int64
	// users are the entries that are served and send traffic to a cluster, by its name.
	users map[string]map[*entry]struct{}
	// rejected are the keys of entries that may have a rejection, so that nobody has to look at all the others.
	rejected map[translate.Key]struct{}
	// heldBack and pinned are the keys of entries that are.
	heldBack, pinned map[translate.Key]bool
	// sharing are the secrets that share a TLS context with a secret, by name. disputed are those of which such a
	// context was rejected by another one's fault, with the rejection of that.
	sharing  map[string]map[string]bool
	disputed map[string]*Rejection
	// perRoute says, of a generation, what is set per route by what is served in place of a rejected version.
	perRoute struct {
		generation int64
		sets       translate.RouteSettings
	}
	// warn is told what somebody should look at.
	warn func(msg string, fields ...zap.Field)
}

// tableRules are those of [rules] that the table follows.
type tableRules struct {
	typ translate.Type
	// contentDecides says that nothing but its content makes Envoy reject a resource. It is then not tried again, and
	// what is known of a version stays known when only its metadata change.
	contentDecides bool
	// blocks says that what relies on a rejected resource of this type is held back, and blockable that resources of
	// this type may be held back.
	blocks, blockable bool
	// perRoute types are route tables, which may set something per route.
	perRoute bool
	// hasSecrets types have TLS contexts of several secrets.
	hasSecrets bool
}

// typeTable are the entries of one type, by name and by number.
type typeTable struct {
	tableRules
	byName map[string]*entry
	byID   []*entry
	free   []int
	// served counts those that are.
	served int
}

// entry is one resource as it should be, and what is known of it. See the package comment for its states.
type entry struct {
	translate.Key
	// id is its number among those of its type, for the plans' [ids]. refs counts the plans that have it, have asked
	// for it, or have something to do with it: without any, an entry that is not desired is forgotten.
	id, refs int
	// served is what [entry.toServe] was at the last [table.change].
	served *translate.Resource

	// desired is the configured version, nil where it is to be removed.
	desired *translate.Resource
	// lastGood is the last version that an Envoy has ACKed.
	lastGood *translate.Resource
	// rejection is set where the desired version was NACKed.
	rejection *Rejection
	// bisection is the search for the policies at fault in a rejected filter config, and its result; nil where there
	// is none. goodParts are the policies that Envoys have ACKed in this filter config, each with its digest.
	bisection *bisection
	goodParts map[string]string
	// pinned keeps the last good version although nothing is desired, for what relies on it. heldBack has it served
	// although the desired version is not at fault: what that relies on was rejected.
	pinned, heldBack bool
	// revision is the one that changed desired last, and goodRevision the last one whose version lastGood is known to
	// be.
	revision, goodRevision int64
}

// change is one link of the table's log. What all plans have followed is garbage, so that what an Envoy that lags has
// costs nothing until its plan looks, and then only what differs.
type change struct {
	entry *entry
	// was is what was served before.
	was *translate.Resource
	// revision that made the change. relook says that no revision did: the entry has only to be looked at again.
	revision int64
	relook   bool
	number   int64
	next     *change
}

// newTable makes an empty table; the types are in the order in which they are looked at for something to send.
func newTable(types []tableRules, warn func(string, ...zap.Field)) *table {
	t := &table{
		types: map[translate.Type]*typeTable{}, tail: &change{}, generation: 1, users: map[string]map[*entry]struct{}{},
		rejected: map[translate.Key]struct{}{}, disputed: map[string]*Rejection{}, warn: warn,
	}
	for _, r := range types {
		tt := &typeTable{tableRules: r, byName: map[string]*entry{}}
		t.types[r.typ], t.order = tt, append(t.order, tt)
	}
	return t
}

// toServe is what is to be served: the desired version, or in its place the last good one.
func (e *entry) toServe() *translate.Resource {
	switch {
	case e == nil:
		return nil
	case e.desired == nil:
		if e.pinned {
			return e.lastGood
		}
		return nil
	case e.bisection != nil:
		return e.bisection.form
	case e.rejection != nil, e.heldBack && e.lastGood != nil:
		return e.lastGood
	default:
		return e.desired
	}
}

// gone says that there is no such resource. It may be known because an Envoy has it, or has asked for it.
func (e *entry) gone() bool { return e == nil || (e.desired == nil && !e.pinned) }

// uniform says whether every Envoy gets the same variant of what is served, for as long as it is connected.
func (e *entry) uniform() bool {
	return e.served != nil && e.served.PerRoute == nil && e.served.OverLimit == nil
}

// goodUntil is the revision of the last good version, 0 where there is none.
func (e *entry) goodUntil() int64 {
	if e.lastGood == nil {
		return 0
	}
	return e.goodRevision
}

// quarantined says whether something else than the desired version is served. A filter config without the policies
// that are known to be at fault is the desired version, as far as that can be had.
func (e *entry) quarantined() bool {
	return e != nil && e.desired != nil && (e.heldBack || e.rejection != nil && (e.bisection == nil || !e.bisection.done))
}

// proven says whether some Envoy has ACKed the version that is served.
func (e *entry) proven() bool {
	return e != nil && e.served != nil && e.lastGood != nil && e.lastGood.Version == e.served.Version
}

// find finds an entry; nil where there is none.
func (t *table) find(typ translate.Type, name string) *entry {
	if tt := t.types[typ]; tt != nil {
		return tt.byName[name]
	}
	return nil
}

// entry finds an entry, or makes one that is [entry.gone].
func (t *table) entry(k translate.Key) *entry {
	tt := t.types[k.Type]
	if e := tt.byName[k.Name]; e != nil {
		return e
	}
	e := &entry{Key: k}
	if n := len(tt.free); n > 0 {
		e.id, tt.free = tt.free[n-1], tt.free[:n-1]
		tt.byID[e.id] = e
	} else {
		e.id = len(tt.byID)
		tt.byID = append(tt.byID, e)
	}
	tt.byName[k.Name] = e
	return e
}

// served is what is served of a resource, nil for nothing.
func (t *table) served(k translate.Key) *translate.Resource {
	if e := t.find(k.Type, k.Name); e != nil {
		return e.served
	}
	return nil
}

// unref takes one reference away.
func (t *table) unref(e *entry) {
	e.refs--
	t.forget(e)
}

// forget drops an entry that nobody needs any more.
func (t *table) forget(e *entry) {
	if e.refs > 0 || !e.gone() || e.id < 0 {
		return
	}
	tt := t.types[e.Type]
	delete(tt.byName, e.Name)
	tt.byID[e.id], tt.free = nil, append(tt.free, e.id)
	e.id = -1
}

// changed adds an entry to the log; call it after each change of what it serves. The revision is that which made the
// change, or 0 where the entry has only to be looked at again.
func (t *table) changed(e *entry, revision int64) {
	t.generation++
	n := &change{
		entry: e, was: e.served, revision: cmp.Or(revision, t.revision), relook: revision == 0, number: t.tail.number + 1,
	}
	t.tail.next, t.tail = n, n
	now := e.toServe()
	if now == e.served {
		return
	}
	if e.served != nil {
		t.types[e.Type].served--
		for _, c := range e.served.Clusters {
			delete(t.users[c], e)
			if len(t.users[c]) == 0 {
				delete(t.users, c)
			}
		}
	}
	if now != nil {
		t.types[e.Type].served++
		for _, c := range now.Clusters {
			if t.users[c] == nil {
				t.users[c] = map[*entry]struct{}{}
			}
			t.users[c][e] = struct{}{}
		}
	}
	e.served = now
}

// apply makes a delta, the result of a revision, what the Envoys should have.
func (t *table) apply(revision int64, d translate.Delta) {
	t.revision = revision
	for _, r := range d.Upserts {
		t.put(r, revision)
	}
	var removed []*entry
	for _, k := range d.Removes {
		if e := t.find(k.Type, k.Name); e != nil && e.desired != nil {
			t.shareSecrets(e.desired, nil)
			e.desired, e.rejection, e.bisection, e.revision = nil, nil, nil, revision
			t.changed(e, revision)
			removed = append(removed, e)
		}
	}
	t.quarantine()
	for _, e := range removed {
		t.forget(e)
	}
}

// restart takes a revision below the last one, which is that of a database that was restored: no version is known to
// be of a later one.
func (t *table) restart(revision int64) {
	for _, tt := range t.order {
		for _, e := range tt.byName {
			e.revision, e.goodRevision = min(e.revision, revision), min(e.goodRevision, revision)
		}
	}
}

func (t *table) put(r *translate.Resource, revision int64) {
	tt := t.types[r.Type]
	e := t.entry(r.Key)
	if r.Same(e.desired) {
		return
	}
	if tt.contentDecides && e.desired != nil && e.desired.Version == r.Version {
		// Another carrier for the same content: what is known of that stays.
		if e.lastGood.Is(r.Version) {
			e.lastGood = r
		}
		e.desired = r
		t.changed(e, 0)
		return
	}
	if e.lastGood != nil && e.desired != nil && e.lastGood.Version == e.desired.Version {
		e.goodRevision = revision - 1
	}
	t.shareSecrets(e.desired, r)
	e.replaceDesired(r)
	e.revision = revision
	t.changed(e, revision)
}

// accept notes that an Envoy has ACKed a version, which a revision made.
func (t *table) accept(r *translate.Resource, revision int64) {
	e := t.find(r.Type, r.Name)
	if e == nil {
		return
	}
	if e.desired.Is(r.Version) {
		e.goodParts = e.desired.Parts
		if r = e.desired; e.rejection != nil {
			e.rejection, e.bisection = nil, nil
			defer t.quarantine() // releases what was held back for it
			defer t.changed(e, 0)
		}
	} else if e.bisection != nil && e.bisection.form.Is(r.Version) {
		r = e.bisection.form
		if e.bisection.done {
			e.goodParts = r.Parts
		}
	} else if e.lastGood != nil && (revision < e.goodRevision || e.lastGood.Version == r.Version) {
		return // a slower Envoy, where a later version is known to be good; or nothing new
	}
	if !e.lastGood.Is(r.Version) {
		t.generation++
	}
	if e.lastGood, e.goodRevision = r, revision; e.toServe() != e.served {
		t.changed(e, 0)
	}
}

// reject notes that an Envoy has NACKed a version, and adds the entry to the log, so that every plan looks at it
// again.
func (t *table) reject(by reviewer, r *translate.Resource, reason string, now time.Time) {
	e := t.find(r.Type, r.Name)
	if e != nil && e.bisection != nil && e.bisection.form.Is(r.Version) {
		t.rejectForm(e, by, now)
		return
	}
	if e == nil || !e.desired.Is(r.Version) || e.bisection != nil {
		return // it has been replaced in the meantime
	}
	r = e.desired
	tries := 0
	if e.rejection != nil {
		tries = e.rejection.tries + 1
	} else {
		t.warn("envoy refused a resource", zap.String("type", ShortType(r.Type)),
			zap.String("name", r.Name), zap.String("reason", reason), zap.Stringers("objects", some(r.Objects)))
	}
	t.rejected[r.Key] = struct{}{}
	e.rejection = &Rejection{Resource: r, Revision: e.revision, Reason: reason, at: now, tries: tries}
	if e.lastGood != nil && e.lastGood.Version == r.Version {
		e.lastGood = nil // one Envoy ACKed it, another NACKed it: nothing is known to be good
	} else if t.bisect(e, by) {
		t.quarantine()
		return
	}
	t.changed(e, 0)
	t.quarantine()
}

// retryAt is when the rejected version may be tried again on an Envoy: the others than the one that rejected it may do
// so at once where the fault may be that one's own.
func (x *Rejection) retryAt(on reviewer, pause time.Duration) time.Time {
	if x.others && x.by != on {
		return x.at
	}
	return x.at.Add(pause << min(x.tries, 5))
}

// tryAtOnce has the rejected version tried again without a pause.
func (x *Rejection) tryAtOnce() { x.at = time.Time{} }

// retried notes that the rejected version is on its way again, so that no other Envoy tries it at the same time.
func (t *table) retried(e *entry, now time.Time) {
	e.rejection.at, e.rejection.others = now, false
	t.generation++
}

func some(in []resource.Ref) []resource.Ref { return in[:min(len(in), 5)] }

// rejections lists what was rejected and is not corrected, and what waits for that.
func (t *table) rejections() []Rejection {
	t.prune()
	var out []Rejection
	for k := range t.rejected {
		e := t.find(k.Type, k.Name)
		r := *e.rejection
		r.GoodUntil, r.Closed = e.goodUntil(), e.blamed()
		if e.bisection.searching() || e.bisection != nil && len(r.Closed) == 0 {
			continue // it is not known yet which policy is at fault, or is corrected
		}
		out = append(out, r)
	}
	out = append(append(out, t.heldBackFor()...), t.disputes()...)
	slices.SortFunc(out, func(a, b Rejection) int { return cmp.Compare(a.Resource.Name, b.Resource.Name) })
	return out
}

// prune forgets the keys of what is corrected.
func (t *table) prune() {
	for k := range t.rejected {
		if e := t.find(k.Type, k.Name); e == nil || e.desired == nil || e.rejection == nil {
			delete(t.rejected, k)
		}
	}
	for name, r := range t.disputed {
		if !t.inDispute(name, r) {
			delete(t.disputed, name)
		}
	}
}

// resources lists what is served, by type and name.
func (t *table) resources() []*translate.Resource {
	var out []*translate.Resource
	for _, tt := range t.order {
		for _, name := range slices.Sorted(maps.Keys(tt.byName)) {
			if r := tt.byName[name].toServe(); r != nil {
				out = append(out, r)
			}
		}
	}
	return out
}

// servedCount counts what is served.
func (t *table) servedCount() (n int) {
	for _, tt := range t.order {
		n += tt.served
	}
	return n
}

// ShortType is the last word of a type URL: Cluster.
func ShortType(t translate.Type) string {
	return string(t[strings.LastIndexByte(string(t), '.')+1:])
}
