package guard_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/marchproxy/marchproxy/pkg/guard"
)

// TestGuessing: after twenty wrong secrets an address may try one a second; others may go on, and so may who has
// a secret that has been right, from the same address. The log has it once, without the secret.
func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, said := observer.New(zap.WarnLevel)
		a := guard.NewAttempts(zap.New(core))
		a.Passed("the right one")
		looked := 0
		for i := range 1000 {
			remote := fmt.Sprintf("[2001:db8::%x]:%d", i+1, 1000+i) // one customer's network
			if _, look := a.Look(remote, "a guess"); look {
				looked++
				a.Failed(remote, "a guess", "test")
			}
		}
		if looked != 20 || a.Wrong() != 20 || a.Slowed() != 980 {
			t.Errorf("%d of 1000 guesses were looked at, %d counted as wrong, %d as slowed down", looked, a.Wrong(), a.Slowed())
		}
		if wait, look := a.Look("[2001:db8::1]:9", "a guess"); look || wait <= 0 || wait > time.Second {
			t.Errorf("the next one waits %v", wait)
		}
		if _, look := a.Look("[2001:db8::1]:9", "the right one"); !look {
			t.Error("a secret that was right is not looked at")
		}
		if _, look := a.Look("[2001:db8:0:1::1]:9", "a guess"); !look {
			t.Error("another address is slowed down")
		}
		if n := said.Len(); n != 1 {
			t.Errorf("the log has %d lines: %v", n, said.All())
		}
		time.Sleep(1100 * time.Millisecond)
		if _, look := a.Look("[2001:db8::1]:9", "a guess"); !look {
			t.Error("after a second there is no try again")
		}
	})
}

// TestManyAddresses: however many addresses guess, the table stays small, and who guesses goes on being slowed down.
func TestManyAddresses(t *testing.T) {
	a := guard.NewAttempts(nil)
	for i := range 30_000 {
		a.Failed(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), "a guess", "test")
	}
	for range 21 {
		a.Failed("192.0.2.1:1", "a guess", "test")
	}
	if _, look := a.Look("192.0.2.1:1", "a guess"); look {
		t.Error("the last one is not slowed down")
	}
}

// TestConnections: of connections without proof the oldest goes, of the address that has the most; one with proof
// stays.
func TestConnections(t *testing.T) {
	raw, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := guard.Listen(raw, 3)
	t.Cleanup(func() { _ = l.Close() }) // the test is over
	served := make(chan net.Conn, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served <- c
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() }) // the test is over
		return c
	}
	closed := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	other := dial("127.0.0.9") // the oldest, alone at its address
	<-served
	proven := dial("127.0.0.1")
	l.Proven((<-served).RemoteAddr().String())
	first := dial("127.0.0.1")
	<-served
	second := dial("127.0.0.1")
	gone := <-served
	third := dial("127.0.0.1")
	<-served
	if !closed(first) || closed(second) || closed(third) || closed(other) || closed(proven) {
		t.Errorf("closed: first %t, second %t, third %t, the other address's %t, the one with proof %t", closed(first),
			closed(second), closed(third), closed(other), closed(proven))
	}
	if n := l.Unproven(); n != 3 {
		t.Errorf("%d count", n)
	}
	_ = gone.Close()
	if n := l.Unproven(); n != 2 {
		t.Errorf("%d count after one has ended", n)
	}
}
