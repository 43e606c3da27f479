package enforce

import (
	"context"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/bpf"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestReportsWhileTheKernelTakesALongList: a ruleset may take the kernel half a minute, and a report that came only
// then would come after the api had called the node absent.
func TestReportsWhileTheKernelTakesALongList(t *testing.T) {
	pins := t.TempDir()
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(pins, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	e := New(Options{
		ID: "n", Interface: "lo", Mode: bpf.Generic, PinDir: pins + "/marchproxy", StateDir: t.TempDir(), Log: zap.NewNop(),
		Peers: func(context.Context) []netip.Addr { return nil }, Guarded: func() {},
	})
	deny := make([]string, 100_000)
	for i := range deny { // apart, so that each has nodes of its own in the trie
		deny[i] = netip.AddrFrom4([4]byte{byte(1 + i%200), byte(i / 200 % 250), byte(i / 50_000), 7}).String()
	}
	long := object(t, "long", &configv1.RateLimitPolicy{Deny: deny})
	type result struct {
		took time.Duration
		err  error
	}
	updated := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread's network namespace goes with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			updated <- result{0, err}
			return
		}
		start := time.Now()
		err := e.Update(resource.Update{Commit: resource.Commit{Epoch: "e", Revision: 7}, Changed: []*resource.Object{long}})
		updated <- result{time.Since(start), err}
	}()
	var worst time.Duration
	for {
		start := time.Now()
		e.Status(start)
		worst = max(worst, time.Since(start))
		select {
		case r := <-updated:
			if r.err != nil {
				t.Fatal(r.err)
			}
			if s := e.Status(time.Now()); s.Revision != 7 || s.Reason != "" || s.Mode != string(bpf.Generic) {
				t.Fatalf("%+v", s)
			}
			t.Logf("the update took %v, the slowest report %v", r.took, worst)
			if worst > r.took/2 {
				t.Errorf("a report took %v while an update took %v", worst, r.took)
			}
			if err := e.close(); err != nil {
				t.Error(err)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}
