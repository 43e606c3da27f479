package bpf

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestUpgradeKeepsEnforcing: packets are sent and counted all the while; a program whose configuration has another
// layout, and whose table of sources has another size, takes over. A source that has used its limit up stays
// limited: not one burst more gets through.
func TestUpgradeKeepsEnforcing(t *testing.T) {
	server, client := newNamespace(t), newNamespace(t)
	pair(t, server, client)
	dir := pinDir(t)
	const burst = 1000
	rules := Ruleset{Default: &Policy{ID: 1, Rate: 1, Burst: burst}}
	began := time.Now()
	old, err := Open(Options{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, old, rules)
	attach := func(p *Program) {
		server.do(t, func() {
			if _, err := p.Attach("in", Native); err != nil {
				t.Error(err)
			}
		})
	}
	attach(old)
	before := pins(t, dir)
	var conn net.Conn
	client.do(t, func() {
		if conn, err = net.Dial("udp4", "10.9.0.1:9"); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan int, 1)
	go func() {
		n, tick := 0, time.NewTicker(100*time.Microsecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			if _, err := conn.Write([]byte("x")); err == nil {
				n++
			}
		}
		sent <- n
	}()
	counted := func(p *Program) (under, over uint64) {
		c := stats(t, p).Reasons
		return c["under_limit"].Packets, c["over_limit"].Packets
	}
	await := func(p *Program, over uint64) {
		t.Helper()
		look := time.NewTicker(5 * time.Millisecond)
		defer look.Stop()
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-look.C {
			if _, n := counted(p); n >= over {
				return
			}
		}
		t.Fatal("no packets are counted")
	}
	await(old, 100)
	fresh := open(t, Options{PinDir: dir, Sources: 1 << 16, layout: 1})
	_, over := counted(fresh)
	await(fresh, over+100) // the old program goes on while the new one has nothing but its maps
	apply(t, fresh, rules)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	_, over = counted(fresh)
	await(fresh, over+100)
	attach(fresh)
	_, over = counted(fresh)
	await(fresh, over+2000)
	cancel()
	n := <-sent
	under, over := counted(fresh)
	// the kernel's own packets on the wire count by themselves
	most := burst + 1 + uint64(time.Since(began).Seconds()) + 20
	t.Logf("%d sent; %d within the limit, which gives %d, %d over", n, under, most, over)
	if under > most {
		t.Errorf("%d packets passed within a limit that gives %d", under, most)
	}
	if all := int(under + over); all < n {
		t.Errorf("%d packets were sent, %d met the program", n, all)
	}
	if after := pins(t, dir); after != before {
		t.Errorf("%d pins, %d before the upgrade", after, before)
	}
}

func pins(t *testing.T, dir string) int {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(all) == 0 {
		t.Fatalf("no pins: %v", err)
	}
	return len(all)
}
