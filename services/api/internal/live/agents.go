package live

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// Limit is a rate limit policy to wait for.
type Limit struct {
	Name string
	// Revision of the policy; 0 where it is to be gone.
	Revision int64
	// Selectors of the nodes concerned: the policy's, and what it was before.
	Selectors []map[string]string
}

type agent struct {
	status.AgentStatus
	seen time.Time
}

// ReportAgent takes an agent's report.
func (b *Board) ReportAgent(s status.AgentStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.Stopping {
		delete(b.agents, s.ID)
	} else {
		b.agents[s.ID] = agent{s, b.now()}
	}
	b.tell()
}

// freshAgents lists the nodes that have reported lately, in the order of their ids.
func (b *Board) freshAgents() []agent {
	now := b.now()
	maps.DeleteFunc(b.agents, func(_ string, a agent) bool { return now.Sub(a.seen) > status.Stale })
	return slices.SortedFunc(maps.Values(b.agents), func(x, y agent) int { return cmp.Compare(x.ID, y.ID) })
}

// judgeAgents looks at the nodes that the policies select. Those without an interface to guard enforce
// nothing, on purpose, and are not waited for.
func (b *Board) judgeAgents(t Target) (l api.Live, done bool) {
	done = true
	for _, a := range b.freshAgents() {
		if a.Interface == "" || !slices.ContainsFunc(t.Limits, func(x Limit) bool { return x.concerns(a.Labels) }) {
			continue
		}
		l.Agents++
		switch {
		case a.Epoch != t.Epoch || (a.Revision < t.Revision && !a.has(t.Limits)):
			done, l.Reason = false, "node "+a.ID+" has not applied the policy yet"
		case a.Reason != "":
			return api.Live{State: "rejected", Reason: "node " + a.ID + ": " + a.Reason, Agents: l.Agents}, true
		}
	}
	switch {
	case !done:
		return l, false
	case l.Agents == 0:
		return api.Live{State: "no_agents", Reason: "no node that the policy selects is connected with an interface to guard (XDP_INTERFACE)"}, true
	default:
		return api.Live{Live: true, State: "live", Agents: l.Agents}, true
	}
}

func (l Limit) concerns(labels map[string]string) bool {
	return slices.ContainsFunc(l.Selectors, func(s map[string]string) bool { return config.Selects(s, labels) })
}

// has says whether the node enforces these very policies, though it may not know of later revisions, which
// did not concern it.
func (a agent) has(limits []Limit) bool {
	for _, l := range limits {
		if l.concerns(a.Labels) && (l.Revision == 0 || a.applied(l.Name) != l.Revision) {
			return false
		}
	}
	return true
}

func (a agent) applied(policy string) int64 {
	for _, p := range a.Policies {
		if p.Name == policy {
			return p.Revision
		}
	}
	return 0
}

// Nodes are the connected nodes that a policy selects, and what they make of it.
func (b *Board) Nodes(policy string, revision int64, selector map[string]string) []api.RateLimitNode {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []api.RateLimitNode{}
	for _, a := range b.freshAgents() {
		if !config.Selects(selector, a.Labels) {
			continue
		}
		n := api.RateLimitNode{
			ID: a.ID, Interface: a.Interface, Mode: a.Mode, Reason: a.Reason, AppliedRevision: a.applied(policy),
			Dropped: a.Dropped, Warnings: a.Warnings, At: a.At,
		}
		n.Live = n.AppliedRevision == revision && n.Reason == "" && n.Mode != ""
		for _, p := range a.Policies {
			if p.Name == policy {
				n.Passed, n.Limited = p.Passed, p.Limited
			}
		}
		for _, s := range a.Sources {
			if s.Policy == policy {
				n.Sources = append(n.Sources, api.LimitedSource{Address: s.Address, Limited: s.Limited})
			}
		}
		out = append(out, n)
	}
	return out
}
