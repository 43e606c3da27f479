package guard

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Listener bounds how many connections there are whose clients have not shown who they are. Above that the oldest one
// is closed of the address that has the most of them: who has a secret shows it in the first moment, so that it is
// somebody's who only holds connections open.
type Listener struct {
	net.Listener
	// Patience is how long a connection may be without proof; without limit where 0. Set it before [Listener.Accept].
	Patience time.Duration
	most     int

	mu       sync.Mutex
	sources  map[netip.Addr]*list.List // of *conn, the oldest first
	unproven map[string]*conn          // by remote address
}

// Listen bounds a listener's connections to most of them without proof.
func Listen(l net.Listener, most int) *Listener {
	return &Listener{Listener: l, most: most, sources: map[netip.Addr]*list.List{}, unproven: map[string]*conn{}}
}

type conn struct {
	net.Conn
	l      *Listener
	remote string
	from   netip.Addr
	place  *list.Element // nil once it counts no more
	limit  *time.Timer
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	out := &conn{Conn: c, l: l, remote: c.RemoteAddr().String()}
	out.from = Source(out.remote)
	if victim := l.add(out); victim != nil {
		_ = victim.Conn.Close() // its server finds out
	}
	return out, nil
}

// add counts a connection, and takes out the one that has to go for it.
func (l *Listener) add(c *conn) (victim *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.unproven) >= l.most {
		var most *list.List
		for _, all := range l.sources {
			if most == nil || all.Len() > most.Len() {
				most = all
			}
		}
		if most != nil {
			victim = most.Front().Value.(*conn)
			l.remove(victim)
		}
	}
	all := l.sources[c.from]
	if all == nil {
		all = list.New()
		l.sources[c.from] = all
	}
	c.place = all.PushBack(c)
	l.unproven[c.remote] = c
	if l.Patience > 0 {
		c.limit = time.AfterFunc(l.Patience, func() { _ = c.Close() }) // its server finds out
	}
	return victim
}

// remove has a connection count no more.
func (l *Listener) remove(c *conn) {
	if c.place == nil {
		return
	}
	all := l.sources[c.from]
	all.Remove(c.place)
	c.place = nil
	if c.limit != nil {
		c.limit.Stop()
	}
	if all.Len() == 0 {
		delete(l.sources, c.from)
	}
	if l.unproven[c.remote] == c {
		delete(l.unproven, c.remote)
	}
}

// Proven says that the client at a remote address (host:port) has shown who it is: its connection may stay.
func (l *Listener) Proven(remote string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.unproven[remote]; c != nil {
		l.remove(c)
	}
}

// Unproven counts the connections whose clients have not.
func (l *Listener) Unproven() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.unproven)
}

// Close closes the connection.
func (c *conn) Close() error {
	c.l.mu.Lock()
	c.l.remove(c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}
