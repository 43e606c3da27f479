package ads

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// settled is how long after its return an Envoy is still ranked by what it had before.
const settled = 30 * time.Second

// Seats says which Envoys have a seat under their license: those that have been connected longest. An
// Envoy that comes back without one (it says which form of the license it holds) ranks behind those that
// come back with one, so that a restart of this server does not deal the seats anew.
//
// It is one for all gateways, since a license may be that of several. Its lock is taken before those of
// gateways.
type Seats struct {
	mu      sync.Mutex
	limits  map[string]int    // by license; none where there is no limit
	license map[string]string // by gateway
	streams []*stream
}

// NewSeats returns seats without limits.
func NewSeats() *Seats { return &Seats{limits: map[string]int{}, license: map[string]string{}} }

// Configure says which license each gateway has, and how many Envoys each license allows.
func (s *Seats) Configure(license map[string]string, limits map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.license, s.limits = license, limits
	s.deal()
}

// Surplus counts the Envoys of a license without a seat.
func (s *Seats) Surplus(license string) (connected, surplus int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		if s.license[st.g.name] == license {
			connected++
		}
	}
	if limit, limited := s.limits[license]; limited {
		surplus = max(connected-limit, 0)
	}
	return connected, surplus
}

func (s *Seats) join(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = append(s.streams, st)
	s.deal()
}

func (s *Seats) leave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = slices.DeleteFunc(s.streams, func(o *stream) bool { return o == st })
	s.deal()
}

// stood notes that an Envoy came back without a seat.
func (s *Seats) stood(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.stood = true
	s.deal()
}

// deal gives the seats out.
func (s *Seats) deal() {
	now := time.Now()
	slices.SortStableFunc(s.streams, func(a, b *stream) int {
		return cmp.Or(a.rank(now)-b.rank(now), a.since.Compare(b.since))
	})
	taken := map[string]int{}
	for _, st := range s.streams {
		license := s.license[st.g.name]
		limit, limited := s.limits[license]
		taken[license]++
		st.seat(!limited || taken[license] <= limit)
	}
}

func (s *stream) rank(now time.Time) int {
	if s.stood && now.Sub(s.since) < settled {
		return 1
	}
	return 0
}

// seat tells an Envoy of its seat, or that it has none: what has another form for that is sent again.
func (s *stream) seat(has bool) {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if s.surplus == !has {
		return
	}
	s.surplus = !has
	for _, e := range s.g.entries[translate.TypeExtension] {
		if r := e.effective(); r != nil && r.Surplus != nil {
			s.touch(r.Key, s.g.revision)
		}
	}
	s.wakeUp()
}
