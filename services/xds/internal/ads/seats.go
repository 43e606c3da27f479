package ads

import (
	"time"

	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

var _ seats.Holder = (*deltaStream)(nil)

// Seat says whether the Envoy has a seat, and since when it counts: what has a variant for that is sent again. The lock
// of the seats is taken before that of the gateway.
func (s *deltaStream) Seat(has bool, since time.Time) bool {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	changes := s.plan.overLimit == has
	if !changes && s.seniority.Equal(since) {
		return false
	}
	s.seniority = since
	if changes {
		s.plan.setOverLimit(!has)
		s.wake()
	}
	s.g.proxyChanged(s)
	return true
}
