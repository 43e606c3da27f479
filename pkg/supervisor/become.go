package supervisor

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Become replaces this process, a child of [Child], by another program, and returns only where it cannot. What the mask
// says is taken from the modes of the files that the program makes, in addition to the mask that there is.
func Become(mask int, args []string) error {
	syscall.Umask(syscall.Umask(0o777) | mask)
	// Asked for by the parent already, and forgotten where this program has got capabilities by its file, or where another
	// thread than the first hands over. The kernel has it of the thread that asks, which must be the one that hands over.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("end with the parent: %w", err)
	}
	return fmt.Errorf("start %s: %w", args[0], syscall.Exec(args[0], args, os.Environ()))
}
