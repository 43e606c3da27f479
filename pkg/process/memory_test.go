package process_test

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// TestSparing: a program that has little in memory may make some garbage before it is collected, one with much a quarter
// of that, and one whose user has said how much is left alone.
func TestSparing(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	now := func() int {
		p := debug.SetGCPercent(77)
		debug.SetGCPercent(p)
		return p
	}
	process.Sparing(func(string) (string, bool) { return "50", true })
	if got := now(); got != 77 {
		t.Errorf("with GOGC it is %d %%, not what that says", got)
	}
	process.Sparing(func(string) (string, bool) { return "", false })
	until := func(what string, is func(percent int) bool) {
		t.Helper()
		for t0 := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			runtime.GC()
			if is(now()) {
				return
			}
			if time.Since(t0) > 10*time.Second {
				t.Fatalf("with %s in memory it is %d %%", what, now())
			}
		}
	}
	until("little", func(p int) bool { return p > 200 })
	much := make([]byte, 200<<20)
	until("much", func(p int) bool { return p == 25 })
	runtime.KeepAlive(much)
	until("little again", func(p int) bool { return p > 200 })
}
