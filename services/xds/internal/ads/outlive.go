package ads

import "github.com/marchproxy/marchproxy/pkg/translate"

// What an Envoy has when it comes back says its versions, not its content. Where this server does not know all
// addresses of a cluster's endpoints, because it has lost its state and a DNS name does not resolve, the Envoy may
// have more of them: it keeps what it has.

// outlives says whether an Envoy's endpoints are such, of which this server has a part only.
func outlives(have, r *translate.Resource) bool { return foreign(have) && r.Partial }

// waits says whether a changed cluster has to wait: its warming would wait for endpoints, and what this server has
// of them would take some away. Which ones a returning Envoy has it says after its clusters.
func (s *stream) waits(cluster string) bool {
	if translate.IsCarrier(cluster) {
		return false // it has no endpoints
	}
	ts := s.types[translate.TypeEndpoint]
	if r := s.effective(translate.Key{Type: translate.TypeEndpoint, Name: cluster}); r != nil && !r.Partial {
		return false
	}
	return !ts.subscribed || foreign(s.have(s.g.entries[translate.TypeEndpoint][cluster]))
}
