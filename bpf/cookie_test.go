package bpf

import "testing"

// TestSYNCookies: connections through answered SYNs work, over IPv4 and IPv6, with a real listener behind.
func TestSYNCookies(t *testing.T) {
	s := newSite(t, Ruleset{SYNCookies: true, Filters: defaultFilters()}, "2", "4096")
	s.askAll(t)
	if n := s.answered(t); n < 3 {
		t.Errorf("%d SYNs answered, want 3", n)
	}
}

func (s *site) askAll(t *testing.T) {
	t.Helper()
	s.client.do(t, func() {
		for _, address := range []string{"10.9.0.1:8080", "10.9.0.1:8080", "[fd09::1]:8080"} {
			ask(t, address, 1)
		}
	})
}

// TestSYNCookiesAdaptive: with net.ipv4.tcp_syncookies=1, Linux's default, the program leaves SYNs to the kernel in
// peace, and answers them once a flood has filled the listener's queue; connections work before and meanwhile.
func TestSYNCookiesAdaptive(t *testing.T) {
	s := newSite(t, Ruleset{SYNCookies: true, Filters: defaultFilters()}, "1", "64")
	s.askAll(t)
	if n := s.answered(t); n != 0 {
		t.Errorf("%d SYNs answered in peace, want none", n)
	}
	s.floodQueue(t, 1000)
	flooded := s.answered(t)
	if flooded < 500 {
		t.Errorf("%d of 1,000 SYNs answered, though the listener's queue holds 64", flooded)
	}
	s.askAll(t)
	if n := s.answered(t) - flooded; n < 3 {
		t.Errorf("%d SYNs of the client answered with the queue full, want 3", n)
	}
}

// TestSYNCookiesOff: with net.ipv4.tcp_syncookies=0 the kernel makes no cookie and would take none, so the program
// leaves every SYN to it.
func TestSYNCookiesOff(t *testing.T) {
	s := newSite(t, Ruleset{SYNCookies: true, Filters: defaultFilters()}, "0", "64")
	s.askAll(t)
	s.floodQueue(t, 1000)
	if n := s.answered(t); n != 0 {
		t.Errorf("%d SYNs answered, want none", n)
	}
}

// floodQueue sends n SYNs from as many sources over the client's own link.
func (s *site) floodQueue(t *testing.T, n uint32) {
	t.Helper()
	// The kernel answers these by a route; without one it would not queue them.
	s.server.ip(t, "route add 198.18.0.0/15 via 10.9.0.2 dev in")
	mac := s.server.mac(t, "in")
	s.client.do(t, func() {
		f, err := newSender("out", mac)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.prog.Close()
		if err := f.send(n); err != nil {
			t.Error(err)
		}
	})
}
