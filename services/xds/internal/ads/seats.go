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
	s.sync()
	for _, e := range s.g.kinds[translate.TypeExtension].byID {
		if e != nil && e.served != nil && e.served.Surplus != nil {
			s.touch(e, e.served, s.g.revision, false) // it keeps what the Envoy has as it was until now
		}
	}
	s.surplus, s.place = !has, since
	s.g.moved(s)
	s.recount()
	s.wakeUp()
	return true
}
