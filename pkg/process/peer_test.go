package process_test

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// TestPeerUser: whose the other end of a connection is, over IPv4, IPv6, and IPv4 by a socket for both.
func TestPeerUser(t *testing.T) {
	for _, c := range [][2]string{{"127.0.0.1:0", "127.0.0.1"}, {"[::1]:0", "::1"}, {"[::]:0", "127.0.0.1"}} {
		lis, err := net.Listen("tcp", c[0])
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(lis.Addr().String())
		client, err := net.Dial("tcp", net.JoinHostPort(c[1], port))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := lis.Accept()
		if err != nil {
			t.Fatal(err)
		}
		peer, own := addr(t, conn.RemoteAddr()), addr(t, conn.LocalAddr())
		if uid, ok := process.PeerUser(peer, own); !ok || uid != os.Getuid() {
			t.Errorf("%s: %d %v, want %d", c[0], uid, ok, os.Getuid())
		}
		if uid, ok := process.PeerUser(netip.AddrPortFrom(peer.Addr(), peer.Port()^1), own); ok {
			t.Errorf("%s: another port is of user %d", c[0], uid)
		}
		// Who listens at an address is not whose connection it is.
		if uid, ok := process.PeerUser(own, netip.AddrPortFrom(peer.Addr(), peer.Port()^1)); ok {
			t.Errorf("%s: a connection that is not there is of user %d", c[0], uid)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		if uid, ok := process.PeerUser(peer, own); ok && uid != os.Getuid() {
			t.Errorf("%s: a closed connection is of user %d", c[0], uid)
		}
		_ = conn.Close()
		_ = lis.Close()
	}
}

func addr(t *testing.T, a net.Addr) netip.AddrPort {
	t.Helper()
	out, err := netip.ParseAddrPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// BenchmarkPeerUser beside 5,000 connections.
func BenchmarkPeerUser(b *testing.B) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var peer, own netip.AddrPort
	for range 5000 {
		client, err := net.Dial("tcp", lis.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		conn, err := lis.Accept()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _, _ = client.Close(), conn.Close() }) // they are in nobody's way
		peer, own = netip.MustParseAddrPort(conn.RemoteAddr().String()), netip.MustParseAddrPort(conn.LocalAddr().String())
	}
	for b.Loop() {
		if _, ok := process.PeerUser(peer, own); !ok {
			b.Fatal("not found")
		}
	}
}
