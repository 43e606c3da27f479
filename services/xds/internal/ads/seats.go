package ads

import (
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

var _ seats.Holder = (*stream)(nil)

// Seat tells the Envoy of its seat, or that it has none: what has another form for that is sent again. The
// lock of the seats is taken before that of the gateway.
func (s *stream) Seat(has bool, since time.Time) bool {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if s.surplus == !has {
		changed := !s.place.Equal(since)
		if s.place = since; changed {
			s.g.moved(s)
		}
		return changed
	}
	s.surplus, s.place = !has, since
	s.g.moved(s)
	for _, e := range s.g.entries[translate.TypeExtension] {
		if r := e.effective(); r != nil && r.Surplus != nil {
			s.touch(r.Key, s.g.revision)
		}
	}
	s.wakeUp()
	return true
}
