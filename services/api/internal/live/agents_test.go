package live_test

import (
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
)

// TestPoliciesAreLiveWhereTheySelect: a policy waits for the nodes that it selects and selected, and for no
// others.
func TestPoliciesAreLiveWhereTheySelect(t *testing.T) {
	now := time.Now()
	zone := func(z string) map[string]string { return map[string]string{"zone": z} }
	node := status.AgentStatus{
		ID: "n", Epoch: "e", Revision: 4, Labels: zone("a"), Interface: "eth0", Mode: "native",
		Policies: []status.PolicyStatus{{Name: "p", Revision: 3}},
	}
	change := func(f func(*status.AgentStatus)) status.AgentStatus {
		n := node
		f(&n)
		return n
	}
	put := func(revision int64, selectors ...map[string]string) live.Target {
		return live.Target{
			Epoch: "e", Revision: revision,
			Limits: []live.Limit{{Name: "p", Revision: revision, Selectors: selectors}},
		}
	}
	for _, c := range []struct {
		what   string
		agents []status.AgentStatus
		target live.Target
		state  string
	}{
		{"no node", nil, put(5, nil), "no_agents"},
		{"a node behind", []status.AgentStatus{node}, put(5, nil), "pending"},
		{
			"a node that has it",
			[]status.AgentStatus{change(func(s *status.AgentStatus) { s.Revision = 5 })},
			put(5, nil), "live",
		},
		{"a node of another epoch", []status.AgentStatus{
			change(func(s *status.AgentStatus) { s.Revision, s.Epoch = 5, "other" }),
		}, put(5, nil), "pending"},
		{
			"a node that enforces this very policy",
			[]status.AgentStatus{change(func(s *status.AgentStatus) {
				s.Policies = []status.PolicyStatus{
					{Name: "p", Revision: 5},
				}
			})},
			put(5, nil), "live",
		},
		{
			"nodes of which one is behind",
			[]status.AgentStatus{
				change(func(s *status.AgentStatus) { s.ID, s.Revision = "m", 9 }),
				change(func(s *status.AgentStatus) { s.Policies = nil }),
			},
			put(5, nil), "pending",
		},
		{"a node that it does not select", []status.AgentStatus{node}, put(5, zone("b")), "no_agents"},
		{
			"a node that it has selected until now",
			[]status.AgentStatus{change(func(s *status.AgentStatus) { s.Policies = nil })},
			put(5, zone("a"), zone("b")),
			"pending",
		},
		{
			"a node without an interface",
			[]status.AgentStatus{change(func(s *status.AgentStatus) { s.Interface, s.Mode = "", "" })},
			put(5, nil),
			"no_agents",
		},
		{"a node that cannot", []status.AgentStatus{
			change(func(s *status.AgentStatus) { s.Revision, s.Reason = 5, "no BTF" }),
		}, put(5, nil), "rejected"},
		{
			"a node that has stopped",
			[]status.AgentStatus{node, change(func(s *status.AgentStatus) { s.Stopping = true })},
			put(5, nil), "no_agents",
		},
	} {
		b := live.NewBoard(func() time.Time { return now })
		for _, a := range c.agents {
			b.ReportAgent(a, true)
		}
		if l := b.Now(c.target); l.State != c.state || l.Live != (c.state == "live") {
			t.Errorf("%s: %+v, want %s", c.what, l, c.state)
		}
	}
}

// TestSilentNodesAreNamed: a node that stopped or fell silent is not waited for, and the answer says that its kernel
// may still do what it did; one that is back is waited for again.
func TestSilentNodesAreNamed(t *testing.T) {
	now := time.Now()
	b := live.NewBoard(func() time.Time { return now })
	target := live.Target{
		Epoch: "e", Revision: 5,
		Limits: []live.Limit{{Name: "p", Revision: 5, Selectors: []map[string]string{nil}}},
	}
	node := func(id string, revision int64) status.AgentStatus {
		return status.AgentStatus{ID: id, Epoch: "e", Revision: revision, Interface: "eth0", Mode: "native"}
	}
	b.ReportAgent(node("silent", 4), true)
	now = now.Add(status.Stale + time.Second)
	if l := b.Now(target); l.State != "no_agents" || !strings.Contains(l.Reason, "node silent has not reported since") {
		t.Errorf("with a silent node alone: %+v", l)
	}
	b.ReportAgent(node("other", 5), true)
	if l := b.Now(target); !l.Live || l.Agents != 1 || !strings.Contains(l.Reason, "node silent has not reported since") {
		t.Errorf("with another node: %+v", l)
	}
	b.ReportAgent(node("silent", 4), true)
	if l := b.Now(target); l.State != "pending" {
		t.Errorf("it is back, and behind: %+v", l)
	}
	stopped := node("silent", 5)
	stopped.Stopping = true
	b.ReportAgent(stopped, true)
	if l := b.Now(target); !l.Live || !strings.Contains(l.Reason, "silent") {
		t.Errorf("it has stopped: %+v", l)
	}
	now = now.Add(live.Remember + time.Second)
	b.ReportAgent(node("other", 5), true)
	if l := b.Now(target); !l.Live || l.Reason != "" {
		t.Errorf("it is forgotten: %+v", l)
	}
}

func TestSilentNodesAreGone(t *testing.T) {
	now := time.Now()
	b := live.NewBoard(func() time.Time { return now })
	b.ReportAgent(status.AgentStatus{
		ID: "n", Interface: "eth0", Mode: "skb", Revision: 3, Envoy: "n-envoy", EnvoyGateway: "default",
		Policies: []status.PolicyStatus{{Name: "p", Revision: 1}},
		Sources:  []status.LimitedSource{{Address: "192.0.2.1", Policy: "p", Limited: 7}},
	}, true)
	if n := b.Nodes("p", 1, nil); len(n) != 1 {
		t.Fatalf("%v", n)
	}
	b.ReportAgent(status.AgentStatus{ID: "a"}, true)
	all := b.AllNodes()
	if len(all) != 2 || all[0].ID != "a" || !all[1].Connected || all[1].Mode != "skb" || all[1].Proxy != "n-envoy" ||
		all[1].Gateway != "default" || all[1].Revision != 3 || len(all[1].Policies) != 1 || all[1].Sources[0].Limited != 7 {
		t.Errorf("all nodes: %+v", all)
	}
	now = now.Add(status.Stale + time.Second)
	if n := b.Nodes("p", 1, nil); len(n) != 0 {
		t.Errorf("a node that was silent for %s is still there: %v", status.Stale, n)
	}
	if all := b.AllNodes(); len(all) != 2 || all[1].Connected {
		t.Errorf("a node that is silent: %+v", all)
	}
}
