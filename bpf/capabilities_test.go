package bpf

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// keep gives up all capabilities of the calling thread but these. The thread should end with its goroutine.
func keep(t *testing.T, capabilities ...int) {
	t.Helper()
	var data [2]unix.CapUserData
	for _, c := range capabilities {
		data[c/32].Effective |= 1 << (c % 32)
		data[c/32].Permitted |= 1 << (c % 32)
	}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		t.Error(err)
	}
}

// TestCapabilities: these three are enough to begin, and CAP_BPF to go on: to make a larger map, to
// look at all of them, and to guard an interface that was made anew.
func TestCapabilities(t *testing.T) {
	server, client := newNamespace(t), newNamespace(t)
	pair(t, server, client)
	dir := pinDir(t)
	larger := Ruleset{Deny: prefixes("10.0.0.0/8")}
	for i := range 200 {
		larger.Deny = append(larger.Deny, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(i), 1}), 32))
	}
	attached, again := make(chan struct{}), make(chan struct{})
	done := server.start(func() {
		defer func() {
			if t.Failed() {
				close(attached)
			}
		}()
		keep(t, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON)
		p := open(t, Options{PinDir: dir})
		apply(t, p, Ruleset{})
		if _, err := p.Attach("in", Native); err != nil {
			t.Error(err)
		}
		keep(t, unix.CAP_BPF)
		apply(t, p, larger)
		if d, err := p.Differences(larger); err != nil || len(d) > 0 {
			t.Errorf("the maps cannot be looked at: %v %v", d, err)
		}
		stats(t, p)
		if _, err := p.TopSources(1); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
		attached <- struct{}{}
		<-again
		if a, err := p.Attach("in", Native); err != nil || a.Mode != Native {
			t.Errorf("an interface made anew: %+v %v", a, err)
		}
	})
	if _, there := <-attached; !there {
		t.FailNow()
	}
	server.ip(t, "link del in")
	pair(t, server, client)
	close(again)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestMissingCapabilities: it says which.
func TestMissingCapabilities(t *testing.T) {
	// cilium/ebpf asks the kernel once in a process whether programs have names. Asked first without capabilities it would
	// take the refusal for a no, and the programs of the tests after this one would have none.
	open(t, Options{})
	for _, c := range []struct {
		has   []int
		lacks string
	}{
		{nil, "lacks CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON"},
		{[]int{unix.CAP_BPF, unix.CAP_PERFMON}, "lacks CAP_NET_ADMIN"},
		{[]int{unix.CAP_NET_ADMIN, unix.CAP_PERFMON}, "lacks CAP_BPF"},
		{[]int{unix.CAP_BPF, unix.CAP_NET_ADMIN}, "lacks CAP_PERFMON"},
		{[]int{unix.CAP_SYS_ADMIN}, ""},
	} {
		newNamespace(t).do(t, func() {
			keep(t, c.has...)
			p, err := Open(Options{})
			if c.lacks == "" {
				if err != nil {
					t.Error(err)
					return
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), "this process "+c.lacks+":") {
				t.Errorf("with %v: %v", c.has, err)
			}
		})
	}
}
