package ads

import (
	"maps"
	"slices"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// In the place of a refused version its last good one is served, which belongs to an earlier configuration. What the
// good version needs of that configuration (clusters, secrets, policies) stays, though it is gone from the present one;
// and what needs the refused version is held back. So also an Envoy that joins now is served things that fit together.

// holders are the types that can be held back, each after those that it relies on.
var holders = []translate.Type{translate.TypeExtension, translate.TypeListener, translate.TypeScope}

// hold finds what cannot be sent because a cluster or a slot of it was refused.
func (g *Gateway) hold() {
	refused := false
	for k := range g.refused {
		e := g.entries[k.Type][k.Name]
		refused = refused || (e.quarantined() && (k.Type == translate.TypeCluster || k.Type == translate.TypeExtension))
	}
	if !refused && len(g.held) == 0 {
		return
	}
	g.held = map[translate.Key]bool{}
	for _, t := range holders {
		for name, e := range g.entries[t] {
			held := refused && e.desired != nil && e.bad == nil && (e.good == nil || e.good.Version != e.desired.Version) && g.blocker(e.desired) != nil
			k := translate.Key{Type: t, Name: name}
			if held {
				g.held[k] = true
			}
			if held != e.held {
				e.held = held
				g.changed(e, 0)
			}
		}
	}
}

// blocker is the refusal of what a resource cannot do without: a cluster, or what a slot should hold. A
// route that names a policy would otherwise be served without it.
func (g *Gateway) blocker(r *translate.Resource) *Refusal {
	for _, k := range r.Needs {
		if e := g.entries[k.Type][k.Name]; e != nil && e.desired != nil && e.bad != nil && e.contained == nil {
			return e.bad
		}
	}
	for _, c := range r.Clusters {
		if e := g.entries[translate.TypeCluster][c]; e != nil && e.desired != nil && e.bad != nil && e.good == nil {
			return e.bad
		}
	}
	return nil
}

// heldBack says of what is held why.
func (g *Gateway) heldBack() []Refusal {
	var out []Refusal
	for k := range g.held {
		e := g.entries[k.Type][k.Name]
		if e == nil || e.desired == nil || e.bad != nil {
			continue
		}
		if c := g.blocker(e.desired); c != nil {
			out = append(out, Refusal{
				Resource: e.desired, Revision: e.revision, Good: e.lastGood(),
				Reason: "held back: it relies on " + c.Resource.Name + ", which was refused: " + c.Reason,
			})
		}
	}
	return out
}

// substitutes yields what is served in the place of what is refused or held back.
func (g *Gateway) substitutes(yield func(translate.Key, *entry) bool) {
	for _, keys := range []func(func(translate.Key) bool){maps.Keys(g.refused), maps.Keys(g.held)} {
		for k := range keys {
			if e := g.entries[k.Type][k.Name]; e.quarantined() && e.good != nil && !yield(k, e) {
				return
			}
		}
	}
}

// uses lists what a resource makes an Envoy ask for: clusters with their endpoints and secrets, and secrets.
func (g *Gateway) uses(r *translate.Resource) []translate.Key {
	secrets := slices.Clone(r.Secrets)
	var out []translate.Key
	for _, c := range r.Clusters {
		out = append(out, translate.Key{Type: translate.TypeCluster, Name: c}, translate.Key{Type: translate.TypeEndpoint, Name: c})
		if e := g.entries[translate.TypeCluster][c]; e != nil && e.good != nil {
			secrets = append(secrets, e.good.Secrets...)
		}
	}
	for _, s := range secrets {
		out = append(out, translate.Key{Type: translate.TypeSecret, Name: s})
	}
	return out
}

// repin keeps clusters, with their endpoints, and secrets that the configuration no longer has but that are
// still used by what is served in the place of something refused.
func (g *Gateway) repin() {
	if len(g.refused)+len(g.held)+len(g.pinned) == 0 {
		return
	}
	g.hold()
	pinned := map[translate.Key]bool{}
	for _, e := range g.substitutes {
		for _, k := range g.uses(e.good) {
			pinned[k] = true
		}
	}
	for k := range g.pinned {
		if e := g.entries[k.Type][k.Name]; e != nil && e.pinned && !pinned[k] {
			e.pinned = false
			g.changed(e, 0)
			defer g.forget(e)
		}
	}
	for k := range pinned {
		if e := g.entries[k.Type][k.Name]; e != nil && !e.pinned {
			e.pinned = true
			g.changed(e, 0)
		}
	}
	g.pinned = pinned
}

// Policies are those that routes name which are served in the place of refused ones: they must stay in the
// slots, whatever the configuration says of them.
func (g *Gateway) Policies() map[string]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]bool{}
	for _, e := range g.substitutes {
		for _, p := range e.good.Policies {
			out[p] = true
		}
	}
	return out
}
