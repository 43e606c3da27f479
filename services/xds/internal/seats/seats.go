// Package seats says which Envoys have a seat under their license: those that have been connected longest, to any of
// the xDS servers. All others are over the limit.
//
// # Assignment
//
// Each server hears which Envoys the others have, and assigns the seats by itself. Of the same reports all servers
// make the same list, the most senior Envoy first, and the first ones have the seats. So no server has to be asked,
// and while none can be heard each goes on with what it heard last.
//
// # Seniority
//
// An Envoy's seniority is since when it has been there. It keeps that over an absence of up to [Grace], a restart of
// its server or a change to another included: it is known again by its gateway, node id and host, or, where nobody
// remembers it, by the variant of the license's filter config that it has.
//
//	                   ┌────────────────────────┐
//	 Join              │       connected        │
//	──────────────────►│ here or at another     │
//	 new: its seniority│ server; in the list    │
//	 begins            └──┬──────────────────▲──┘
//	                      │ Leave; a report  │ Join, at any server:
//	                      │ without it; its  │ it has the seniority
//	                      │ server's silence │ that it had
//	                   ┌──▼──────────────────┴──┐
//	                   │         absent         │
//	                   │ not in the list        │
//	                   └──┬─────────────────────┘
//	                      │ Grace is over
//	                      ▼
//	                  forgotten
//
// # A seat of one Envoy
//
//	┌──────────────────┐  a more senior Envoy comes back,  ┌──────────────────┐
//	│    has a seat    │  the license allows fewer         │  over the limit  │
//	│                  ├──────────────────────────────────►│ answers 429      │
//	│                  │◄──────────────────────────────────┤                  │
//	└──────────────────┘  a more senior Envoy goes,        └──────────────────┘
//	                      the license allows more
//
// An Envoy that comes last never takes another one's seat, so that no two servers have to agree on it first. One that
// has just come to one server while another still reports it counts once: see [Moving].
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
	// Grace is how long an Envoy may be away and keep its seniority.
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
	// Connected is since when this connection has been there. Since is the Envoy's seniority: since when it has been
	// there, absences of less than [Grace] aside.
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

// Holder is an Envoy of this server. Seat is called, with locks held, whenever its seat or seniority may be another,
// and answers whether one is.
type Holder interface {
	Seat(has bool, since time.Time) bool
}

// connection is an Envoy that is connected, here or at another server.
type connection struct {
	Proxy
	server string
	holder Holder // nil: another server's
	// cameWithoutSeat says that the Envoy has come back with the variant for those over the limit.
	cameWithoutSeat bool
	// superseded says that the Envoy has come to another server, which the one of this connection has not noticed yet.
	superseded bool
}

// absent is an Envoy that was connected, and is expected back until then.
type absent struct {
	Proxy
	until time.Time
}

// report is what another server has reported of its Envoys, and when.
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
	here    map[Holder]*connection
	known   map[key][]*connection // those here
	there   map[string]report     // by server
	gone    map[key][]absent
}

// New returns seats without limits; self is this server's id among the others.
func New(self string) *Seats {
	return &Seats{
		self: self, limits: map[string]int{}, license: map[string]string{}, here: map[Holder]*connection{},
		known: map[key][]*connection{},
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
	s.assign(time.Now())
}

// Join adds an Envoy of this server; its Since is found here.
func (s *Seats) Join(p Proxy, h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// As precise as reports are: all servers must compare the same.
	p.Connected = p.Connected.Truncate(time.Microsecond)
	p.Since = p.Connected
	c := &connection{Proxy: p, server: s.self, holder: h}
	s.here[h] = c
	s.known[p.key()] = append(s.known[p.key()], c)
	s.inherit(c, p.Connected)
	if len(s.limits) == 0 { // nobody else's seat or seniority changes
		h.Seat(true, c.Since)
		return
	}
	s.assign(p.Connected)
}

// Leave removes it.
func (s *Seats) Leave(h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if c := s.here[h]; c != nil {
		delete(s.here, h)
		k := c.key()
		if s.known[k] = slices.DeleteFunc(s.known[k], func(o *connection) bool { return o == c }); len(s.known[k]) == 0 {
			delete(s.known, k)
		}
		s.noteAbsent(c.Proxy, now)
	}
	if len(s.limits) > 0 {
		s.assign(now)
	}
}

// noteAbsent notes that an Envoy is gone.
func (s *Seats) noteAbsent(p Proxy, now time.Time) {
	k := p.key()
	s.gone[k] = append(s.gone[k], absent{p, now.Add(Grace)})
}

// CameWithoutSeat notes that an Envoy has come back with the variant for those over the limit. Unless somebody
// remembers its seniority, it counts as junior to those that come back with a seat and may still be on their way.
func (s *Seats) CameWithoutSeat(h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.here[h]; c != nil && !c.cameWithoutSeat {
		c.cameWithoutSeat = true
		if c.Since.Equal(c.Connected) {
			c.Since = c.Connected.Add(Grace)
		}
		s.assign(time.Now())
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

// Hear takes another server's report; stopped is its last one, or its silence. It says whether a seat or
// seniority is another now.
func (s *Seats) Hear(server string, proxies []Proxy, stopped bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if server == s.self {
		return false
	}
	now := time.Now()
	s.hear(server, proxies, stopped, now)
	return s.assign(now)
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
			if !is.has(p) && !s.tookOver(p) {
				s.noteAbsent(p, now)
			}
		}
	}
}

// tookOver says whether an Envoy of this server has the seniority of one that is gone already.
func (s *Seats) tookOver(p Proxy) bool {
	return slices.ContainsFunc(s.known[p.key()], func(c *connection) bool { return !c.Since.After(p.Since) })
}

// Remember takes the last report of the process before this one.
func (s *Seats) Remember(proxies []Proxy) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, p := range proxies {
		s.noteAbsent(p, now)
	}
	for _, c := range s.bySeniority() {
		if c.holder != nil {
			s.inherit(c, now)
		}
	}
	return s.assign(now)
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
	return s.assign(now)
}

// inherit gives an Envoy the seniority that it had: as one that went, or that another server still reports.
func (s *Seats) inherit(c *connection, now time.Time) {
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
		s.gone[k] = slices.Delete(s.gone[k], found, found+1) // two Envoys cannot both be the one that went
	}
}

// bySeniority lists all Envoys, the most senior first, the same on every server.
func (s *Seats) bySeniority() []*connection {
	var all []*connection
	for _, c := range s.here {
		c.superseded = false
		all = append(all, c)
	}
	for server, r := range s.there {
		for _, same := range r.proxies {
			for _, p := range same {
				all = append(all, &connection{Proxy: p, server: server})
			}
		}
	}
	slices.SortFunc(all, func(a, b *connection) int {
		return cmp.Or(
			a.Since.Compare(b.Since),
			a.Connected.Compare(b.Connected),
			cmp.Compare(a.server, b.server),
			cmp.Compare(a.Gateway, b.Gateway),
			cmp.Compare(a.ID, b.ID),
			cmp.Compare(a.Address, b.Address),
		)
	})
	return all
}

// assign assigns the seats, and says whether somebody's seat or seniority is another one.
func (s *Seats) assign(now time.Time) (changed bool) {
	if len(s.limits) == 0 {
		for h, c := range s.here {
			changed = h.Seat(true, c.Since) || changed
		}
		return changed
	}
	all := s.bySeniority()
	s.markSuperseded(all, now)
	taken := map[string]int{}
	for _, c := range all {
		license := s.license[c.Gateway]
		if !c.superseded {
			taken[license]++
		}
		if c.holder != nil {
			limit, limited := s.limits[license]
			changed = c.holder.Seat(!limited || taken[license] <= limit, c.Since) || changed
		}
	}
	return changed
}

// markSuperseded marks the connections of Envoys that have just come to another server: an Envoy counts once.
func (s *Seats) markSuperseded(all []*connection, now time.Time) {
	if len(s.there) == 0 {
		return
	}
	same := map[key][]*connection{}
	for _, c := range all {
		same[c.key()] = append(same[c.key()], c)
	}
	for _, c := range all {
		if now.Sub(c.Connected) > Moving {
			continue
		}
		for _, o := range same[c.key()] {
			if o.server != c.server && !o.superseded && o.Connected.Before(c.Connected) {
				o.superseded = true
				break
			}
		}
	}
}
