package status

import "slices"

const agentPrefix = SubjectPrefix + "agent."

// AgentStatus is one node's report: what its kernel enforces.
type AgentStatus struct {
	// ID of the node, a NATS token.
	ID       string `json:"id"`
	Epoch    string `json:"epoch"`
	Revision int64  `json:"revision"`
	// State is the digest of the configuration at that revision, as in [XdsStatus].
	State string `json:"state,omitempty"`
	// At in RFC 3339.
	At     string            `json:"at"`
	Labels map[string]string `json:"labels,omitempty"`
	// Interface that is guarded; "" where there is none to guard: such a node enforces nothing, on purpose.
	Interface string `json:"interface,omitempty"`
	// Mode as achieved: native, skb or hw; "" while nothing is enforced, and Reason says why.
	Mode     string           `json:"mode,omitempty"`
	Reason   string           `json:"reason,omitempty"`
	Warnings []string         `json:"warnings,omitempty"`
	Policies []PolicyStatus   `json:"policies,omitempty"`
	Passed   map[string]int64 `json:"passed,omitempty"`
	Dropped  map[string]int64 `json:"dropped,omitempty"`
	Sources  []LimitedSource  `json:"sources,omitempty"`
	// Stopping is true in an agent's last report.
	Stopping bool `json:"stopping,omitempty"`
	// Envoy is the node.id of the one that the agent runs, and EnvoyGateway its gateway; "" where it runs none.
	Envoy        string `json:"envoy,omitempty"`
	EnvoyGateway string `json:"envoy_gateway,omitempty"`
	// EnvoyReport is what it sees of that Envoy; nil before that has answered.
	EnvoyReport *EnvoyReport `json:"envoy_report,omitempty"`
	// NoNode says that no agent reports, and so no kernel: `marchproxy dev` runs an Envoy itself.
	NoNode bool `json:"no_node,omitempty"`
	// Unsaved is why the last good policies cannot be written to disk; "" where they can.
	Unsaved string `json:"unsaved,omitempty"`
}

// PolicyStatus is what a node's kernel made of one policy.
type PolicyStatus struct {
	Name     string `json:"name"`
	Revision int64  `json:"revision"`
	Passed   int64  `json:"passed"`
	Limited  int64  `json:"limited"`
}

// LimitedSource is a source above its limit.
type LimitedSource struct {
	Address string `json:"address"`
	Policy  string `json:"policy,omitempty"`
	Limited int64  `json:"limited"`
}

func (AgentStatus) prefix() string { return agentPrefix }
func (s AgentStatus) id() string   { return s.ID }

func (s AgentStatus) last() AgentStatus {
	s.Stopping = true
	return s
}

// urgent: what wait=live waits for.
func (s AgentStatus) urgent(since AgentStatus) bool {
	return s.Epoch != since.Epoch || s.Revision != since.Revision || s.State != since.State || s.Mode != since.Mode ||
		s.Reason != since.Reason ||
		!slices.EqualFunc(s.Policies, since.Policies,
			func(a, b PolicyStatus) bool { return a.Name == b.Name && a.Revision == b.Revision })
}
