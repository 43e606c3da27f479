// Package seats says which Envoys have a seat under their license: those that have been connected longest,
// to any of the xDS servers.
//
// Each server hears which Envoys the others have, and deals by itself: of the same reports all make the
// same list, in which an Envoy's place is since when it has been there. So no server has to be asked, and
// while none can be heard each goes on with what it heard last. An Envoy keeps its place over an absence of
// up to [Grace], a restart of its server or a change to another included: it is known again by its gateway,
// node id and host, or, where nobody remembers it, by the form of the license that it holds.
package seats

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// Grace is how long an Envoy may be away and keep its place.
	Grace = 30 * time.Second
	// Silence is how long a server may be silent: longer than it takes to notice that it is NATS that hangs.
	Silence = 25 * time.Second
	// Moving is how long after an Envoy's arrival another server may still report it, by its silence or by a
	// connection that it does not know to be dead.
	Moving = Silence + 5*time.Second
)

// Proxy is a connected Envoy.
type Proxy struct {
	Gateway, ID string
	// Address is where its connection comes from, host:port.
	Address string
	// Connected is since when this connection has been there; Since its place, absences of less than
	// [Grace] aside.
	Connected, Since time.Time
}

// key is what an Envoy is known by when it comes back. Several may share one.
type key struct{ gateway, id, host string }

func (p Proxy) key() key {
	host, _, err := net.SplitHostPort(p.Address)
	if err != nil {
		host = p.Address
	}
	return key{p.Gateway, p.ID, host}
}

// Holder is an Envoy of this server. Seat is called, with locks held, whenever what it says may be new, and
// answers whether it is.
type Holder interface {
	Seat(has bool, since time.Time) bool
}

type claim struct {
	Proxy
	server string
	holder Holder // nil: another server's
	// stood says that it came back without a seat ([Seats.Stood]).
	stood bool
	// moved says that it is counted at the server that it has come to, and no more at this one, which reports it still.
	moved bool
}

type absent struct {
	Proxy
	until time.Time
}

type report struct {
	proxies map[key][]Proxy
	seen    time.Time
}

func (r report) has(p Proxy) bool {
	return slices.ContainsFunc(r.proxies[p.key()], func(o Proxy) bool { return o.Connected.Equal(p.Connected) })
}

// Seats is one for all gateways, since a license may be that of several.
type Seats struct {
	self string

	mu      sync.Mutex
	limits  map[string]int    // by license; none where there is no limit
	license map[string]string // by gateway
	here    map[Holder]*claim
	known   map[key][]*claim  // those here
	there   map[string]report // by server
	gone    map[key][]absent
}

// New returns seats without limits; self is this server's id among the others.
func New(self string) *Seats {
	return &Seats{
		self: self, limits: map[string]int{}, license: map[string]string{}, here: map[Holder]*claim{}, known: map[key][]*claim{},
		there: map[string]report{}, gone: map[key][]absent{},
	}
}

// Configure says which license each gateway has, and how many Envoys each license allows.
func (s *Seats) Configure(license map[string]string, limits map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if maps.Equal(s.license, license) && maps.Equal(s.limits, limits) {
		return // as at most changes: nobody is asked
	}
	s.license, s.limits = license, limits
	s.deal(time.Now())
}

// Join adds an Envoy of this server; its Since is found here.
func (s *Seats) Join(p Proxy, h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// As precise as reports are: all servers must compare the same.
	p.Connected = p.Connected.Truncate(time.Microsecond)
	p.Since = p.Connected
	c := &claim{Proxy: p, server: s.self, holder: h}
	s.here[h] = c
	s.known[p.key()] = append(s.known[p.key()], c)
	s.recognize(c, p.Connected)
	if len(s.limits) == 0 { // the others' places stay what they are
		h.Seat(true, c.Since)
		return
	}
	s.deal(p.Connected)
}

// Leave removes it.
func (s *Seats) Leave(h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if c := s.here[h]; c != nil {
		delete(s.here, h)
		k := c.key()
		if s.known[k] = slices.DeleteFunc(s.known[k], func(o *claim) bool { return o == c }); len(s.known[k]) == 0 {
			delete(s.known, k)
		}
		s.miss(c.Proxy, now)
	}
	if len(s.limits) > 0 {
		s.deal(now)
	}
}

// miss notes that an Envoy is gone.
func (s *Seats) miss(p Proxy, now time.Time) {
	k := p.key()
	s.gone[k] = append(s.gone[k], absent{p, now.Add(Grace)})
}

// CameWithoutSeat notes that an Envoy has come back without a seat. Unless somebody knows better, it stands behind
// those that come back with one: they may still be on their way.
func (s *Seats) CameWithoutSeat(h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.here[h]; c != nil && !c.stood {
		c.stood = true
		if c.Since.Equal(c.Connected) {
			c.Since = c.Connected.Add(Grace)
		}
		s.deal(time.Now())
	}
}

// Heard notes that another server has reported what it did before; it says whether that is known.
func (s *Seats) Heard(server string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, known := s.there[server]
	if known {
		s.there[server] = report{r.proxies, time.Now()}
	}
	return known
}

// Hear takes another server's report; stopped is its last one, or its silence. It says whether seats or
// places are others now.
func (s *Seats) Hear(server string, proxies []Proxy, stopped bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if server == s.self {
		return false
	}
	now := time.Now()
	s.hear(server, proxies, stopped, now)
	return s.deal(now)
}

func (s *Seats) hear(server string, proxies []Proxy, stopped bool, now time.Time) {
	was, is := s.there[server], report{map[key][]Proxy{}, now}
	if stopped {
		delete(s.there, server)
	} else {
		for _, p := range proxies {
			is.proxies[p.key()] = append(is.proxies[p.key()], p)
		}
		s.there[server] = is
	}
	for _, same := range was.proxies {
		for _, p := range same {
			if !is.has(p) && !s.took(p) {
				s.miss(p, now)
			}
		}
	}
}

// took says whether an Envoy of this server has the place already.
func (s *Seats) took(p Proxy) bool {
	return slices.ContainsFunc(s.known[p.key()], func(c *claim) bool { return !c.Since.After(p.Since) })
}

// Remember takes the last report of this server's life before.
func (s *Seats) Remember(proxies []Proxy) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, p := range proxies {
		s.miss(p, now)
	}
	for _, c := range s.byAge() {
		if c.holder != nil {
			s.recognize(c, now)
		}
	}
	return s.deal(now)
}

// Age forgets servers that have been silent for longer than [Silence]. Where nobody can be heard (deaf),
// that says nothing.
func (s *Seats) Age(deaf bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for server, r := range s.there {
		switch {
		case deaf:
			s.there[server] = report{r.proxies, now}
		case now.Sub(r.seen) > Silence:
			s.hear(server, nil, true, now)
		}
	}
	for k, all := range s.gone {
		if s.gone[k] = slices.DeleteFunc(all, func(a absent) bool { return now.After(a.until) }); len(s.gone[k]) == 0 {
			delete(s.gone, k)
		}
	}
	return s.deal(now)
}

// recognize gives an Envoy the place of one that went, or that another server still reports.
func (s *Seats) recognize(c *claim, now time.Time) {
	k, found := c.key(), -1
	for i, a := range s.gone[k] {
		if a.Since.Before(c.Since) && a.Connected.Before(c.Connected) && now.Before(a.until) {
			c.Since, found = a.Since, i
		}
	}
	for _, r := range s.there {
		for _, p := range r.proxies[k] {
			if p.Since.Before(c.Since) && p.Connected.Before(c.Connected) {
				c.Since, found = p.Since, -1
			}
		}
	}
	if found >= 0 {
		s.gone[k] = slices.Delete(s.gone[k], found, found+1) // its place is taken
	}
}

// byAge lists all Envoys, the oldest place first, the same on every server.
func (s *Seats) byAge() []*claim {
	var all []*claim
	for _, c := range s.here {
		c.moved = false
		all = append(all, c)
	}
	for server, r := range s.there {
		for _, same := range r.proxies {
			for _, p := range same {
				all = append(all, &claim{Proxy: p, server: server})
			}
		}
	}
	slices.SortFunc(all, func(a, b *claim) int {
		return cmp.Or(a.Since.Compare(b.Since), a.Connected.Compare(b.Connected), cmp.Compare(a.server, b.server), cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address))
	})
	return all
}

// deal gives the seats out, and says whether somebody's seat or place is another one.
func (s *Seats) deal(now time.Time) (changed bool) {
	if len(s.limits) == 0 {
		for h, c := range s.here {
			changed = h.Seat(true, c.Since) || changed
		}
		return changed
	}
	all := s.byAge()
	s.move(all, now)
	taken := map[string]int{}
	for _, c := range all {
		license := s.license[c.Gateway]
		if !c.moved {
			taken[license]++
		}
		if c.holder != nil {
			limit, limited := s.limits[license]
			changed = c.holder.Seat(!limited || taken[license] <= limit, c.Since) || changed
		}
	}
	return changed
}

// move marks those that have just come to one server while another still reports them: an Envoy counts
// once.
func (s *Seats) move(all []*claim, now time.Time) {
	if len(s.there) == 0 {
		return
	}
	same := map[key][]*claim{}
	for _, c := range all {
		same[c.key()] = append(same[c.key()], c)
	}
	for _, c := range all {
		if now.Sub(c.Connected) > Moving {
			continue
		}
		for _, o := range same[c.key()] {
			if o.server != c.server && !o.moved && o.Connected.Before(c.Connected) {
				o.moved = true
				break
			}
		}
	}
}
