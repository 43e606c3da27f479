package ads

import (
	"cmp"
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// Quarantined is what a restart must not forget of a quarantined resource: that it was rejected or held back, and what
// is served in its place. All of them together are a quarantine snapshot.
type Quarantined struct {
	Key translate.Key
	// Version that was rejected, the revision that made it, and the reason. The reason is "" where the version is only
	// held back by the rejection of something else, or would be if no Envoy had ACKed it before.
	Version  string
	Revision int64
	Reason   string
	// Good is the last good version, nil where there is none, or where it is the version above.
	Good *translate.Resource
	// GoodRevision is the last one whose version that was.
	GoodRevision int64
	// Closed are the policies that refuse every request, where others of the rejected filter config are served.
	Closed []string
	// Pinned are clusters, with their endpoints, and secrets that only the last good version still uses.
	Pinned []*translate.Resource
}

// snapshot lists what is quarantined, in the order of the keys.
func (t *table) snapshot() []Quarantined {
	var out []Quarantined
	for k := range t.rejected {
		e := t.find(k.Type, k.Name)
		if e == nil || e.desired == nil || e.rejection == nil || e.bisection.searching() {
			continue
		}
		q := Quarantined{
			Key: k, Version: e.desired.Version, Revision: e.rejection.Revision, Reason: e.rejection.Reason,
			GoodRevision: e.goodRevision, Closed: e.bisection.names(),
		}
		if len(q.Closed) == 0 {
			q.Good, q.Pinned = e.lastGood, t.pinnedFor(e.lastGood)
		}
		out = append(out, q)
	}
	for k := range t.heldBack {
		if e := t.find(k.Type, k.Name); e != nil && e.heldBack && e.lastGood != nil {
			out = append(out, Quarantined{
				Key: k, Version: e.desired.Version, Revision: e.revision,
				Good: e.lastGood, GoodRevision: e.goodRevision, Pinned: t.pinnedFor(e.lastGood),
			})
		}
	}
	if len(out) > 0 {
		out = append(out, t.proven()...)
	}
	slices.SortFunc(out, func(a, b Quarantined) int {
		return cmp.Or(cmp.Compare(a.Key.Type, b.Key.Type), cmp.Compare(a.Key.Name, b.Key.Name))
	})
	return out
}

// proven lists the versions that rely on something rejected and that some Envoy has ACKed all the same, so that they
// go with what is served in its place. The next process would hold them back if it did not know that.
func (t *table) proven() []Quarantined {
	var out []Quarantined
	for _, tt := range t.order {
		if !tt.blockable {
			continue
		}
		for _, e := range tt.byName {
			if e.desired != nil && !e.quarantined() && e.proven() && t.blocker(e.desired) != nil {
				out = append(out, Quarantined{
					Key: e.Key, Version: e.desired.Version, Revision: e.revision, GoodRevision: e.goodRevision,
				})
			}
		}
	}
	return out
}

// pinnedFor lists the resources that only a substitute still uses.
func (t *table) pinnedFor(good *translate.Resource) []*translate.Resource {
	if good == nil {
		return nil
	}
	var out []*translate.Resource
	for _, k := range t.reliesOn(good) {
		if p := t.find(k.Type, k.Name); p != nil && p.desired == nil && p.lastGood != nil {
			out = append(out, p.lastGood)
		}
	}
	return out
}

// restore takes the quarantine snapshot of the process before, where it still concerns what is desired.
func (t *table) restore(all []Quarantined, now time.Time) {
	for _, q := range all {
		e := t.find(q.Key.Type, q.Key.Name)
		if e == nil || e.desired == nil || e.desired.Version != q.Version {
			continue
		}
		if e.lastGood, e.goodRevision = q.Good, q.GoodRevision; q.Good == nil && q.Reason == "" {
			e.lastGood = e.desired
		}
		if q.Good != nil { // what is no part of the content is not written down
			e.lastGood.ByName, e.lastGood.Carrier, e.lastGood.Together = e.desired.ByName, e.desired.Carrier, e.desired.Together
		}
		if q.Reason != "" {
			e.rejection = &Rejection{Resource: e.desired, Revision: q.Revision, Reason: q.Reason, at: now}
			t.rejected[q.Key] = struct{}{}
			e.restoreClosed(q.Closed)
		}
		t.changed(e, 0)
		for _, p := range q.Pinned {
			if t.find(p.Type, p.Name) == nil {
				e := t.entry(p.Key)
				e.lastGood, e.revision = p, q.Revision
			}
		}
	}
	t.quarantine()
}
