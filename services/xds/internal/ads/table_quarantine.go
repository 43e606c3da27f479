package ads

import (
	"maps"
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// In place of a rejected version its last good one is served, which belongs to an earlier configuration. What that
// needs of the earlier configuration (clusters, secrets, policies) is pinned: it stays, though it is gone from the
// present one. What needs the rejected version is held back. So an Envoy that joins now is served things that fit
// together.

// Rejection is a resource that an Envoy has NACKed.
type Rejection struct {
	Resource *translate.Resource
	// Revision that made this version.
	Revision int64
	// GoodUntil is the last revision whose version was good, 0 where there is none: what has not been changed since
	// is not at fault, and is served.
	GoodUntil int64
	// Reason in Envoy's words.
	Reason string
	// Closed are the policies at fault, which refuse every request; none where all of the resource was rejected.
	Closed []string
	at     time.Time
	tries  int
	// by is the Envoy whose own fault it may be; others says that all others may try it at once.
	by     reviewer
	others bool
}

// reviewer is an Envoy as the table sees it: its answers say which versions are good.
type reviewer interface {
	// has is the version of a resource that it has, nil for none.
	has(e *entry) *translate.Resource
	connected() bool
}

// quarantine finds out what is held back and what is pinned. Call it after each change of what is rejected or desired.
func (t *table) quarantine() {
	if len(t.rejected)+len(t.heldBack)+len(t.pinned) == 0 {
		return
	}
	t.holdBack()
	t.pin()
}

// holdBack holds back what cannot be sent because a cluster or a filter config that it relies on was rejected.
func (t *table) holdBack() {
	blocking := false
	for k := range t.rejected {
		tt := t.types[k.Type]
		blocking = blocking || (tt.blocks && tt.byName[k.Name].quarantined())
	}
	if !blocking && len(t.heldBack) == 0 {
		return
	}
	t.heldBack = map[translate.Key]bool{}
	for _, tt := range t.order { // each type after those that it relies on
		if !tt.blockable {
			continue
		}
		for _, e := range tt.byName {
			proven := e.desired != nil && e.lastGood != nil && e.lastGood.Version == e.desired.Version
			back := blocking && e.desired != nil && e.rejection == nil && !proven && t.blocker(e.desired) != nil
			if back {
				t.heldBack[e.Key] = true
			}
			if back != e.heldBack {
				e.heldBack = back
				t.changed(e, 0)
			}
		}
	}
}

// blocker is the rejection of something that a resource cannot do without; nil where there is none. That is a cluster,
// or a filter config: a route that names a policy would otherwise be served without it.
func (t *table) blocker(r *translate.Resource) *Rejection {
	for _, k := range r.Needs {
		if e := t.find(k.Type, k.Name); e != nil && e.desired != nil && e.rejection != nil && e.bisection == nil {
			return e.rejection
		}
	}
	for _, c := range r.Clusters {
		if e := t.find(translate.TypeCluster, c); e != nil && e.desired != nil && e.rejection != nil && e.lastGood == nil {
			return e.rejection
		}
	}
	return nil
}

// heldBackFor lists what is held back, with the reason.
func (t *table) heldBackFor() []Rejection {
	var out []Rejection
	for k := range t.heldBack {
		e := t.find(k.Type, k.Name)
		if e == nil || e.desired == nil || e.rejection != nil {
			continue
		}
		if b := t.blocker(e.desired); b != nil {
			out = append(out, Rejection{
				Resource: e.desired, Revision: e.revision, GoodUntil: e.goodUntil(),
				Reason: "held back: it relies on " + b.Resource.Name + ", which was refused: " + b.Reason,
			})
		}
	}
	return out
}

// substituted yields the entries that the last good version is served of, because the desired one is rejected or held
// back.
func (t *table) substituted(yield func(*entry) bool) {
	for _, keys := range []func(func(translate.Key) bool){maps.Keys(t.rejected), maps.Keys(t.heldBack)} {
		for k := range keys {
			if e := t.find(k.Type, k.Name); e.quarantined() && e.lastGood != nil && !yield(e) {
				return
			}
		}
	}
}

// setsPerRoute is what the route tables set per route that are served in place of rejected ones.
func (t *table) setsPerRoute() translate.RouteSettings {
	if t.perRoute.generation != t.generation {
		t.perRoute.generation, t.perRoute.sets = t.generation, 0
		for e := range t.substituted {
			if t.types[e.Type].perRoute {
				t.perRoute.sets |= maySet(e.lastGood)
			}
		}
	}
	return t.perRoute.sets
}

// maySet is what a route table sets per route, or may, because its content is not known.
func maySet(r *translate.Resource) translate.RouteSettings {
	if unknown(r) {
		return ^translate.RouteSettings(0)
	}
	return r.Sets()
}

// unknown says that a version's content is not known: an Envoy has it from an earlier process.
func unknown(r *translate.Resource) bool { return r.Body == nil }

// reliesOn lists what a resource makes an Envoy ask for: clusters with their endpoints and secrets, and secrets.
func (t *table) reliesOn(r *translate.Resource) []translate.Key {
	secrets := slices.Clone(r.Secrets)
	var out []translate.Key
	for _, c := range r.Clusters {
		for _, typ := range []translate.Type{translate.TypeCluster, translate.TypeEndpoint} {
			out = append(out, translate.Key{Type: typ, Name: c})
		}
		if e := t.find(translate.TypeCluster, c); e != nil && e.lastGood != nil {
			secrets = append(secrets, e.lastGood.Secrets...)
		}
	}
	for _, s := range secrets {
		out = append(out, translate.Key{Type: translate.TypeSecret, Name: s})
	}
	return out
}

// pin keeps what the configuration no longer has, and a substitute still relies on: clusters with their endpoints, and
// secrets.
func (t *table) pin() {
	pinned := map[translate.Key]bool{}
	for e := range t.substituted {
		for _, k := range t.reliesOn(e.lastGood) {
			pinned[k] = true
		}
	}
	for k := range t.pinned {
		if e := t.find(k.Type, k.Name); e != nil && e.pinned && !pinned[k] {
			e.pinned = false
			t.changed(e, 0)
			defer t.forget(e)
		}
	}
	for k := range pinned {
		if e := t.find(k.Type, k.Name); e != nil && !e.pinned {
			e.pinned = true
			t.changed(e, 0)
		}
	}
	t.pinned = pinned
}

// policies are those that the routes of substitutes name. They must stay in the filter configs, whatever the
// configuration says of them.
func (t *table) policies() map[string]bool {
	out := map[string]bool{}
	for e := range t.substituted {
		for _, p := range e.lastGood.Policies {
			out[p] = true
		}
	}
	return out
}
