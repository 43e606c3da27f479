package privilege_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/services/agent/internal/privilege"
)

// What the test's own program does in the place of the agent's, and of Envoy: hand over among threads that are busy, and
// say which signal it gets when its parent ends.
const handsOver, says = "hand-over", "say"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case handsOver:
			for range 16 {
				go func() {
					for {
						runtime.Gosched()
					}
				}()
			}
			fmt.Println(privilege.Exec([]string{"exec", os.Args[2], says, "death signal"}))
			os.Exit(1)
		case says:
			var signal int32
			if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&signal)), 0, 0, 0); err != nil {
				fmt.Println(err)
			}
			fmt.Println("gets", signal)
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// TestEndsWithItsParent: whichever thread of the program hands over to Envoy, Envoy is killed when its parent ends. The
// kernel has the signal of one thread alone.
func TestEndsWithItsParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	attempts := 60
	if racetest.Enabled { // where a start takes a second
		attempts = 10
	}
	for range attempts {
		out, err := exec.CommandContext(t.Context(), self, handsOver, self).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint("gets ", int(unix.SIGKILL)) {
			t.Fatalf("%s %v", out, err)
		}
	}
}
