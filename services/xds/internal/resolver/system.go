package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// attempt is how long one DNS server may take for one question: with resolv.conf's own 5 s a server that is
// away would take all the time that a lookup has.
const attempt = 3 * time.Second

// second is how long the addresses of one family are waited for where there are some of the other: some DNS servers
// never answer for AAAA.
const second = time.Second

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
	r := &net.Resolver{PreferGo: true, Dial: dialer(servers)}
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		var found [2][]netip.Addr
		var errs [2]error
		var both sync.WaitGroup
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		// Each by itself, so that a server that fails for one of the two takes nothing away of the other.
		for i, network := range []string{"ip4", "ip6"} {
			both.Go(func() {
				if found[i], errs[i] = lookup(ctx, r, network, host); len(found[i]) > 0 {
					time.AfterFunc(second, cancel)
				}
			})
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
	seen := newReplies()
	addrs, err := r.LookupNetIP(context.WithValue(ctx, key{}, seen), network, host)
	var dns *net.DNSError
	var family *net.AddrError
	switch {
	case err == nil && !seen.failedFor(host):
		return addrs, nil
	case err == nil: // another name of the search list, because this one could not be asked for
		return nil, seen.explain(errors.New("no answer for the name itself"))
	case errors.As(err, &family): // /etc/hosts has it, with addresses of the other family
		return nil, ErrNoAddresses
	case !errors.As(err, &dns) || dns.IsTimeout:
		return nil, err
	case !dns.IsNotFound:
		return nil, seen.explain(err)
	}
	switch anyName, itself := seen.exists(host); {
	case itself, anyName && seen.complete():
		return nil, ErrNoAddresses
	case seen.complete():
		return nil, ErrNotFound
	default:
		return nil, seen.explain(err)
	}
}

// replies is what the DNS servers answered in the course of a lookup. Go's resolver says "no such host" of a
// name that does not exist and of one that has no address, also where one of the names of the search list could not be
// asked for, and "server misbehaving" of every other code.
type replies struct {
	mu     sync.Mutex
	number int
	// named are the questions that were answered, about names that exist; failed those that nobody has answered.
	named, failed map[string]struct{}
	// last is the last failure.
	last error
}

func newReplies() *replies {
	return &replies{named: map[string]struct{}{}, failed: map[string]struct{}{}}
}

// key is that of a lookup's replies in its context.
type key struct{}

func (s *replies) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failed) == 0
}

// exists says whether a DNS server knows a name of the search list, itself whether it knows the name itself.
func (s *replies) exists(host string) (any, itself bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.named) > 0, about(s.named, host)
}

// failedFor says whether the question for a name itself has not been answered.
func (s *replies) failedFor(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return about(s.failed, host)
}

// about says whether one of some questions is for a name, which they begin with as RFC 1035, 4.1.2, writes it.
func about(questions map[string]struct{}, host string) bool {
	var name strings.Builder
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		name.WriteByte(byte(len(label)))
		name.WriteString(label)
	}
	name.WriteByte(0)
	for question := range questions {
		if strings.HasPrefix(question, name.String()) {
			return true
		}
	}
	return false
}

func (s *replies) explain(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return err
	}
	return s.last
}

// next is who is asked next: one after the other of the servers given.
func (s *replies) next(servers []string, address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(servers) > 0 {
		address = servers[s.number%len(servers)]
	}
	s.number++
	return address
}

// codes are those of RFC 1035, 4.1.1; 0 is an answer, and so is 3, that there is no such name.
var codes = map[byte]string{1: "answers FORMERR", 2: "answers SERVFAIL", 4: "answers NOTIMP", 5: "answers REFUSED"}

func (s *replies) heard(server, question string, reply []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := ""
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.last = err
	case errors.Is(err, syscall.ECONNREFUSED):
		said = "refuses connections"
	case err != nil:
		said = "cannot be reached"
	case len(reply) >= 12 && codes[reply[3]&0xf] == "":
		if reply[3]&0xf == 0 {
			s.named[question] = struct{}{}
		}
		delete(s.failed, question)
		return
	case len(reply) >= 12:
		said = codes[reply[3]&0xf]
	}
	if said != "" {
		s.last = errors.New("DNS server " + server + " " + said)
	}
	s.failed[question] = struct{}{}
}

// dialer connects to the DNS servers given, or to the one that is asked for.
func dialer(servers []string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		seen, _ := ctx.Value(key{}).(*replies)
		if seen == nil {
			seen = newReplies()
		}
		address = seen.next(servers, address)
		c, err := (&net.Dialer{Timeout: attempt}).DialContext(ctx, network, address)
		if err != nil {
			seen.heard(address, "", nil, err)
			return nil, err
		}
		if udp, ok := c.(*net.UDPConn); ok {
			return &questions{UDPConn: udp, server: address, seen: seen}, nil
		}
		return c, nil
	}
}

// questions is a connection to a DNS server that notes what comes back.
type questions struct {
	*net.UDPConn
	server string
	asked  string // from the name on
	seen   *replies
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
	q.seen.heard(q.server, q.asked, b[:n], err)
	return n, err
}

func (q *questions) Write(b []byte) (int, error) {
	if len(b) > 12 {
		q.asked = string(b[12:])
	}
	return q.UDPConn.Write(b)
}
