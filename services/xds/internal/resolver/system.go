package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// attempt is how long one DNS server may take for one question: with resolv.conf's own 5 s a server that is
// away would take all the time that a lookup has.
const attempt = 3 * time.Second

// What a lookup can fail with; everything else is a failure to ask.
var (
	// ErrNotFound: the name does not exist (NXDOMAIN).
	ErrNotFound = errors.New("does not exist (NXDOMAIN)")
	// ErrNoAddresses: the name exists.
	ErrNoAddresses = errors.New("exists, but has no addresses (no A and no AAAA record)")
)

// Lookup returns the addresses of a name. Addresses beside an error are a part: what is missing could not be asked.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// System looks a name up as the machine does (/etc/hosts, resolv.conf with its search list and options), at these
// DNS servers (host:port) instead of resolv.conf's where there are some.
func System(servers ...string) Lookup {
	r := &net.Resolver{PreferGo: true, StrictErrors: true, Dial: dialer(servers)}
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		var found [2][]netip.Addr
		var errs [2]error
		var both sync.WaitGroup
		// Each by itself, so that a server that fails for one of the two takes nothing away of the other.
		for i, network := range []string{"ip4", "ip6"} {
			both.Go(func() { found[i], errs[i] = lookup(ctx, r, network, host) })
		}
		both.Wait()
		addrs := append(found[0], found[1]...)
		for _, err := range errs {
			if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNoAddresses) {
				return addrs, err
			}
		}
		switch {
		case len(addrs) > 0:
			return addrs, nil
		case errors.Is(errs[0], ErrNotFound) && errors.Is(errs[1], ErrNotFound):
			return nil, ErrNotFound
		default:
			return nil, ErrNoAddresses
		}
	}
}

// lookup asks for the addresses of one family.
func lookup(ctx context.Context, r *net.Resolver, network, host string) ([]netip.Addr, error) {
	seen := &replies{}
	addrs, err := r.LookupNetIP(context.WithValue(ctx, replies{}, seen), network, host)
	var dns *net.DNSError
	var family *net.AddrError
	switch {
	case err == nil:
		return addrs, nil
	case errors.As(err, &family): // /etc/hosts has it, with addresses of the other family
		return nil, ErrNoAddresses
	case !errors.As(err, &dns):
		return nil, err
	case dns.IsNotFound && seen.exists():
		return nil, ErrNoAddresses
	case dns.IsNotFound:
		return nil, ErrNotFound
	case dns.IsTimeout:
		return nil, err
	default:
		return nil, seen.explain(dns)
	}
}

// replies is what the DNS servers answered in the course of a lookup. Go's resolver says "no such host" of a
// name that does not exist and of one that has no address, and "server misbehaving" of every other code.
type replies struct {
	mu     sync.Mutex
	number int
	named  bool
	// server was asked last, and said, "" where it did not.
	server, said string
}

func (s *replies) exists() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named
}

func (s *replies) explain(err *net.DNSError) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said == "" {
		return err
	}
	return fmt.Errorf("DNS server %s %s", s.server, s.said)
}

// ask notes who is asked next: one after the other of the servers given.
func (s *replies) ask(servers []string, address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(servers) > 0 {
		address = servers[s.number%len(servers)]
	}
	s.number++
	s.server, s.said = address, ""
	return address
}

// codes are those of RFC 1035, 4.1.1.
var codes = map[byte]string{1: "answers FORMERR", 2: "answers SERVFAIL", 4: "answers NOTIMP", 5: "answers REFUSED"}

func (s *replies) heard(reply []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		s.said = "refuses connections"
	case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		s.said = "cannot be reached"
	case len(reply) >= 12:
		s.named = s.named || reply[3]&0xf == 0
		s.said = codes[reply[3]&0xf]
	}
}

// dialer connects to the DNS servers given, or to the one that is asked for.
func dialer(servers []string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		seen, _ := ctx.Value(replies{}).(*replies)
		if seen == nil {
			seen = &replies{}
		}
		c, err := (&net.Dialer{Timeout: attempt}).DialContext(ctx, network, seen.ask(servers, address))
		if err != nil {
			seen.heard(nil, err)
			return nil, err
		}
		if udp, ok := c.(*net.UDPConn); ok {
			return &questions{UDPConn: udp, seen: seen}, nil
		}
		return c, nil
	}
}

// questions is a connection to a DNS server that notes what comes back.
type questions struct {
	*net.UDPConn
	seen *replies
}

// SetDeadline shortens what Go's resolver grants.
func (q *questions) SetDeadline(t time.Time) error {
	if limit := time.Now().Add(attempt); t.After(limit) {
		t = limit
	}
	return q.UDPConn.SetDeadline(t)
}

func (q *questions) Read(b []byte) (int, error) {
	n, err := q.UDPConn.Read(b)
	q.seen.heard(b[:n], err)
	return n, err
}
