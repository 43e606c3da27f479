package enforce

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/disktest"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

func TestMain(m *testing.M) { os.Exit(disktest.Main(m.Run)) }

// TestFullDisk: policies that come while the disk is full are in force, the report says that they are not written down,
// a restart finds the state before, whole; and they are written when there is room, without another change.
func TestFullDisk(t *testing.T) {
	disk := disktest.New(t, 1<<20)
	e := newEnforcer(disk.Dir)
	put := func(rev int64, name string) {
		t.Helper()
		o := object(t, name, &configv1.RateLimitPolicy{PacketsPerSecond: 5, Deny: slices.Repeat([]string{"192.0.2.1"}, 400)})
		if err := e.Update(resource.Update{
			Commit:  resource.Commit{Epoch: "e", Revision: rev},
			Changed: []*resource.Object{o},
		}); err != nil {
			t.Fatal(err)
		}
	}
	found := func() (n int, revision int64) {
		objects, commit := newEnforcer(disk.Dir).Initial()
		return len(objects), commit.Revision
	}
	put(1, "before")
	if err := disk.Fill(); err != nil {
		t.Fatal(err)
	}
	put(2, "full")
	put(3, "fuller")
	if s := e.Status(time.Now()); s.Revision != 3 || !strings.Contains(s.Unsaved, "no space left on device") {
		t.Errorf("revision %d, %q", s.Revision, s.Unsaved)
	}
	if n, revision := found(); n != 1 || revision != 1 {
		t.Errorf("a restart finds %d policies of revision %d", n, revision)
	}
	if err := disk.Empty(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	for limit := time.Now().Add(10 * time.Second); e.Status(time.Now()).Unsaved != ""; {
		if time.Now().After(limit) {
			t.Fatal("they are not written when there is room")
		}
		<-e.Changed()
	}
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if n, revision := found(); n != 3 || revision != 3 {
		t.Errorf("with room a restart finds %d policies of revision %d", n, revision)
	}
}
