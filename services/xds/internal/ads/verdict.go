package ads

import (
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// Verdict is what a restart must not forget of a refused resource: that it was refused, and what is
// served in its place.
type Verdict struct {
	Key translate.Key
	// Version that was refused, the revision that made it, and the reason.
	Version  string
	Revision int64
	Reason   string
	// Good is the last good version, nil where there is none.
	Good *translate.Resource
	// Pinned are clusters, with their endpoints, that only the good version still uses.
	Pinned []*translate.Resource
}

// Verdicts lists them, in the order of their keys.
func (g *Gateway) Verdicts() []Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Verdict
	for k := range g.refused {
		e := g.entries[k.Type][k.Name]
		if e == nil || e.desired == nil || e.bad == nil {
			continue
		}
		v := Verdict{Key: k, Version: e.desired.Version, Revision: e.bad.Revision, Reason: e.bad.Reason, Good: e.good}
		if e.good != nil {
			for _, c := range e.good.Clusters {
				for _, t := range []translate.Type{translate.TypeCluster, translate.TypeEndpoint} {
					if p := g.entries[t][c]; p != nil && p.desired == nil && p.good != nil {
						v.Pinned = append(v.Pinned, p.good)
					}
				}
			}
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b Verdict) int {
		if a.Key.Type != b.Key.Type {
			return compare(string(a.Key.Type), string(b.Key.Type))
		}
		return compare(a.Key.Name, b.Key.Name)
	})
	return out
}

// Recall takes the verdicts of the process before, where they still concern what is desired. It is for
// the time before any Envoy is connected.
func (g *Gateway) Recall(verdicts []Verdict, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, v := range verdicts {
		e := g.entries[v.Key.Type][v.Key.Name]
		if e == nil || e.desired == nil || e.desired.Version != v.Version {
			continue
		}
		e.good, e.goodRevision = v.Good, 0
		e.bad = &Refusal{Resource: e.desired, Revision: v.Revision, Reason: v.Reason, at: now}
		g.refused[v.Key] = struct{}{}
		for _, p := range v.Pinned {
			if g.entries[p.Type][p.Name] == nil {
				g.entries[p.Type][p.Name] = &entry{good: p, revision: v.Revision}
			}
		}
	}
	g.repin()
}
