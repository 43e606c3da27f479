package live

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
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

// Remember is how long a node is spoken of that reports no more. Its kernel goes on with the policies that it had
// last, until the node is started again.
const Remember = time.Hour

type agent struct {
	status.AgentStatus
	seen, unsaved time.Time
	clock         clock
	told          told
}

// ReportAgent takes an agent's report. Fresh says that it comes as it is sent.
func (b *Board) ReportAgent(s status.AgentStatus, fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, was := b.now(), b.agents[s.ID]
	is := agent{AgentStatus: s, seen: now, unsaved: begun(s.Unsaved, was.Unsaved, was.unsaved, now), clock: was.clock}
	if fresh {
		is.clock = is.clock.heard(s.At, now)
	}
	is.told = b.count(is, was, fresh)
	b.agents[s.ID] = is
	b.tell()
}

// freshAgents lists the nodes that have reported lately, in the order of their ids.
func (b *Board) freshAgents() []agent {
	fresh, _ := b.allAgents()
	return fresh
}

// allAgents tells the nodes that have reported lately from those that have stopped or are silent.
func (b *Board) allAgents() (fresh, gone []agent) {
	noNode := func(a agent) bool { return a.NoNode }
	fresh, gone = b.reporters()
	return slices.DeleteFunc(fresh, noNode), slices.DeleteFunc(gone, noNode)
}

// reporters are those, and who else tells of an Envoy.
func (b *Board) reporters() (fresh, gone []agent) {
	now := b.now()
	maps.DeleteFunc(b.agents, func(_ string, a agent) bool { return now.Sub(a.seen) > Remember })
	for _, a := range slices.SortedFunc(maps.Values(b.agents), func(x, y agent) int { return cmp.Compare(x.ID, y.ID) }) {
		if a.Stopping || now.Sub(a.seen) > status.Stale {
			gone = append(gone, a)
		} else {
			fresh = append(fresh, a)
		}
	}
	return fresh, gone
}

// judgeAgents looks at the nodes that the policies select. Those without an interface to guard enforce
// nothing, on purpose, and are not waited for.
func (b *Board) judgeAgents(t Target) (l api.Live, done bool) {
	concerned := func(a agent) bool {
		return a.Interface != "" && slices.ContainsFunc(t.Limits, func(x Limit) bool { return x.concerns(a.Labels) })
	}
	fresh, gone := b.allAgents()
	done = true
	for _, a := range fresh {
		if !concerned(a) {
			continue
		}
		l.Agents++
		switch {
		case a.Epoch != t.Epoch || (a.Revision < t.Revision && !a.has(t.Limits)), !b.had(t, a.Revision, a.State):
			done, l.Reason = false, "node "+a.ID+" has not applied the policy yet"
		case a.Reason != "":
			return api.Live{State: "rejected", Reason: "node " + a.ID + ": " + a.Reason, Agents: l.Agents}, true
		}
	}
	behind := ""
	if i := slices.IndexFunc(gone, func(a agent) bool { return concerned(a) && a.Mode != "" }); i >= 0 {
		behind = "node " + gone[i].ID + " has not reported since " + resource.Time(gone[i].seen) + "; its kernel goes on " +
			"with the policies that it had"
	}
	switch {
	case !done:
		return l, false
	case l.Agents == 0:
		return api.Live{State: "no_agents", Reason: cmp.Or(behind, "no node that the policy selects is connected with an "+
			"interface to guard (XDP_INTERFACE)")}, true
	default:
		return api.Live{Live: true, State: "live", Reason: behind, Agents: l.Agents}, true
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

// AllNodes are the nodes that report, and those that did within the last hour, by name.
func (b *Board) AllNodes() []api.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh, gone := b.allAgents()
	out := []api.Node{}
	for i, a := range slices.Concat(fresh, gone) {
		n := api.Node{
			ID: a.ID, Connected: i < len(fresh), Labels: a.Labels, Interface: a.Interface, Mode: a.Mode, Reason: a.Reason,
			Revision: a.Revision, Passed: a.Passed, Dropped: a.Dropped, Warnings: a.Warnings, Proxy: a.Envoy,
			Gateway: a.EnvoyGateway, At: a.At,
		}
		for _, p := range a.Policies {
			n.Policies = append(n.Policies, p.Name)
		}
		for _, s := range a.Sources {
			n.Sources = append(n.Sources, api.LimitedSource{Address: s.Address, Limited: s.Limited})
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(x, y api.Node) int { return cmp.Compare(x.ID, y.ID) })
	return out
}
