package bpf

import (
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestSYNCookies: connections through answered SYNs work, over IPv4 and IPv6, with a real listener behind.
func TestSYNCookies(t *testing.T) {
	server, client := newNamespace(t), newNamespace(t)
	pair(t, server, client)
	p, peer := open(t, Options{}), open(t, Options{})
	apply(t, p, Ruleset{SYNCookies: true, Filters: DefaultFilters()})
	apply(t, peer, Ruleset{}) // veth sends XDP_TX only to a peer that has a program too
	var listener net.Listener
	server.do(t, func() {
		// /proc/sys/net shows the namespace of the thread that opens it.
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0); err != nil {
			t.Error(err)
		}
		if _, err := p.Attach("in", Native); err != nil {
			t.Error(err)
		}
		l, err := net.Listen("tcp", ":8080")
		if err != nil {
			t.Error(err)
			return
		}
		listener = l
	})
	if listener == nil {
		t.FailNow()
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	client.do(t, func() {
		if _, err := peer.Attach("out", Native); err != nil {
			t.Error(err)
		}
		for _, address := range []string{"10.9.0.1:8080", "10.9.0.1:8080", "[fd09::1]:8080"} {
			c, err := net.DialTimeout("tcp", address, 5*time.Second)
			if err != nil {
				t.Error(err)
				continue
			}
			got := make([]byte, 4)
			_, err = c.Write([]byte("ping"))
			if err == nil {
				_, err = io.ReadFull(c, got)
			}
			if err != nil || string(got) != "ping" {
				t.Errorf("%s: echoed %q %v", address, got, err)
			}
			c.Close()
		}
	})
	if n := stats(t, p).Reasons["syn_cookie"].Packets; n < 3 {
		t.Errorf("%d SYNs answered, want 3", n)
	}
}
