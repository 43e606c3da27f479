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
	// Version that was refused, the revision that made it, and the reason, "" where it is only held back by
	// the refusal of something else, or would be if it had not been accepted before.
	Version  string
	Revision int64
	Reason   string
	// Good is the last good version, nil where there is none, or where it is the version above.
	Good *translate.Resource
	// GoodRevision is the last one whose version that was.
	GoodRevision int64
	// Closed are the policies that refuse every request, where others of the refused slot are served.
	Closed []string
	// Pinned are clusters, with their endpoints, and secrets that only the good version still uses.
	Pinned []*translate.Resource
}

// Verdicts lists them, in the order of their keys.
func (g *Gateway) Verdicts() []Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Verdict
	for k := range g.refused {
		e := g.entries[k.Type][k.Name]
		if e == nil || e.desired == nil || e.bad == nil || e.contained.judging() {
			continue
		}
		if closed := e.contained.names(); len(closed) > 0 {
			out = append(out, Verdict{
				Key: k, Version: e.desired.Version, Revision: e.bad.Revision, Reason: e.bad.Reason, Closed: closed,
				GoodRevision: e.goodRevision,
			})
			continue
		}
		v := Verdict{Key: k, Version: e.desired.Version, Revision: e.bad.Revision, Reason: e.bad.Reason, Good: e.good, GoodRevision: e.goodRevision, Pinned: g.pins(e.good)}
		out = append(out, v)
	}
	for k := range g.held {
		if e := g.entries[k.Type][k.Name]; e != nil && e.held && e.good != nil {
			out = append(out, Verdict{Key: k, Version: e.desired.Version, Revision: e.revision, Good: e.good, GoodRevision: e.goodRevision, Pinned: g.pins(e.good)})
		}
	}
	if len(out) > 0 {
		out = append(out, g.relying()...)
	}
	slices.SortFunc(out, func(a, b Verdict) int {
		if a.Key.Type != b.Key.Type {
			return compare(string(a.Key.Type), string(b.Key.Type))
		}
		return compare(a.Key.Name, b.Key.Name)
	})
	return out
}

// relying are those that some Envoy has accepted and that rely on something refused. Another life of this
// server would hold them back if it did not know that they go with what is served in its place.
func (g *Gateway) relying() []Verdict {
	var out []Verdict
	for _, t := range holders {
		for name, e := range g.entries[t] {
			if e.desired != nil && !e.quarantined() && e.accepted() && g.blocker(e.desired) != nil {
				out = append(out, Verdict{Key: translate.Key{Type: t, Name: name}, Version: e.desired.Version, Revision: e.revision, GoodRevision: e.goodRevision})
			}
		}
	}
	return out
}

// pins are the resources that only what is served in another's place still uses.
func (g *Gateway) pins(good *translate.Resource) []*translate.Resource {
	if good == nil {
		return nil
	}
	var out []*translate.Resource
	for _, k := range g.uses(good) {
		if p := g.entries[k.Type][k.Name]; p != nil && p.desired == nil && p.good != nil {
			out = append(out, p.good)
		}
	}
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
		if e.good, e.goodRevision = v.Good, v.GoodRevision; v.Good == nil && v.Reason == "" {
			e.good = e.desired
		}
		if v.Good != nil { // what is no part of the content is not written down
			e.good.ByName, e.good.Carrier, e.good.Together = e.desired.ByName, e.desired.Carrier, e.desired.Together
		}
		if v.Reason != "" {
			e.bad = &Refusal{Resource: e.desired, Revision: v.Revision, Reason: v.Reason, at: now}
			g.refused[v.Key] = struct{}{}
			e.recall(v.Closed)
		}
		g.changed(e, 0)
		for _, p := range v.Pinned {
			if g.entries[p.Type][p.Name] == nil {
				e := g.entry(p.Key)
				e.good, e.revision = p, v.Revision
			}
		}
	}
	g.repin()
}
