package bpf

import (
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// site is a listener behind the program, and a client beyond it.
type site struct {
	server, client namespace
	p              *Program
}

// newSite makes them: an echo server on port 8080 of [pair]'s server, with syncookies as net.ipv4.tcp_syncookies and
// backlog as net.core.somaxconn. The program is on "in" once rules are applied.
func newSite(t *testing.T, rules Ruleset, syncookies, backlog string) *site {
	t.Helper()
	s := &site{newNamespace(t), newNamespace(t), open(t, Options{})}
	pair(t, s.server, s.client)
	apply(t, s.p, rules)
	s.server.do(t, func() {
		// /proc/sys/net shows the namespace of the thread that opens it.
		for path, value := range map[string]string{"ipv4/tcp_syncookies": syncookies, "core/somaxconn": backlog} {
			if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.p.Attach("in", Native); err != nil {
			t.Error(err)
			return
		}
		l, err := net.Listen("tcp", ":8080")
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
		go echo(l)
	})
	// veth sends XDP_TX only to a peer that has a program too.
	peer := open(t, Options{})
	apply(t, peer, Ruleset{})
	s.client.do(t, func() {
		if _, err := peer.Attach("out", Native); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return s
}

func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// ask connects, sends and reads the echo n times, from a thread inside the client's namespace.
func ask(t *testing.T, address string, n int) (took []time.Duration) {
	for range n {
		start := time.Now()
		c, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			t.Error(err)
			return took
		}
		got := make([]byte, 4)
		if _, err = c.Write([]byte("ping")); err == nil {
			_, err = io.ReadFull(c, got)
		}
		c.Close()
		if err != nil || string(got) != "ping" {
			t.Errorf("%s: echoed %q %v", address, got, err)
			return took
		}
		took = append(took, time.Since(start))
	}
	return took
}

// syn_cookie's packets so far.
func (s *site) answered(t *testing.T) uint64 {
	t.Helper()
	return stats(t, s.p).Reasons["syn_cookie"].Packets
}
