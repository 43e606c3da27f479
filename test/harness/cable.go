package harness

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// Cable is a way to an address (host:port) that can be cut: connections that are there end, and no new ones are made. It
// is cut at the end of the test at the latest.
func Cable(t testing.TB, to string) (addr string, cut func()) {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var conns []net.Conn
	cut = func() {
		cancel()
		_ = lis.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	}
	t.Cleanup(cut)
	go func() {
		for {
			a, err := lis.Accept()
			if err != nil {
				return
			}
			b, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
			if err != nil {
				_ = a.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, a, b)
			mu.Unlock()
			go func() { _, _ = io.Copy(a, b); _ = a.Close() }()
			go func() { _, _ = io.Copy(b, a); _ = b.Close() }()
		}
	}()
	return lis.Addr().String(), cut
}
