// Package privilege gives up the capabilities that the agent and its Envoy can do without: whoever takes one of them
// over gets no more than what it still needs.
package privilege

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/marchproxy/marchproxy/pkg/supervisor"
)

// ToGuard is what guarding an interface may take: loading the program the first three, and the last to mount a BPF file
// system and to name another program that is in the way.
var ToGuard = []cap.Value{cap.BPF, cap.NET_ADMIN, cap.PERFMON, cap.SYS_ADMIN}

// Guarding is what it takes from then on: larger networks get larger maps, for which the kernel asks CAP_BPF, or of a
// process that has not got it CAP_SYS_ADMIN, which had its place before Linux 5.8.
func Guarding() cap.Value {
	if has(cap.BPF) {
		return cap.BPF
	}
	return cap.SYS_ADMIN
}

// listening is for ports below 1024, which both the agent and Envoy may have, at any time.
const listening = cap.NET_BIND_SERVICE

func has(c cap.Value) bool {
	there, err := cap.GetProc().GetFlag(cap.Permitted, c)
	return err == nil && there
}

// Keep gives up what the process has beyond these and CAP_NET_BIND_SERVICE, on all threads and for good. What it
// starts later gets the latter at most, where the process may see to that (CAP_SETPCAP); [Command] needs no such right.
// It returns the names of what is left.
func Keep(capabilities ...cap.Value) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("give up capabilities: %w", err) }
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fail(err)
	}
	capabilities = slices.DeleteFunc(append(slices.Clone(capabilities), listening),
		func(c cap.Value) bool { return !has(c) })
	var passed []cap.Value // not inherited by what root starts, unless it is, and by others only where it is ambient too
	if has(listening) {
		passed = append(passed, listening)
	}
	children := cap.NewIAB()
	if err := children.SetVector(cap.Amb, true, passed...); err != nil {
		return fail(err)
	}
	if has(cap.SETPCAP) {
		for c := range cap.MaxBits() {
			if err := children.SetVector(cap.Bound, c != listening, c); err != nil {
				return fail(err)
			}
		}
	}
	if err := children.SetProc(); err != nil {
		return fail(err)
	}
	left := cap.NewSet()
	for _, f := range []cap.Flag{cap.Permitted, cap.Effective} {
		if err := left.SetFlag(f, true, capabilities...); err != nil {
			return fail(err)
		}
	}
	if err := left.SetFlag(cap.Inheritable, true, passed...); err != nil {
		return fail(err)
	}
	if err := left.SetProc(); err != nil {
		return fail(err)
	}
	names := make([]string, 0, len(capabilities))
	for _, c := range capabilities {
		names = append(names, c.String())
	}
	return strings.Join(names, " "), nil
}

// execWord is the argument that has this program call [Exec].
const execWord = "exec"

// Command starts a program by way of this one, which hands over to it after [Keep]. A user root's new program would
// have all that the bounding set allows, and the capabilities of one thread alone cannot be fewer: the library that
// sets those of all threads ends a process whose threads differ.
func Command(path string, args ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{execWord, path}, args...)...)
}

// Execs says whether a program's arguments are of [Command].
func Execs(args []string) bool { return len(args) >= 2 && args[0] == execWord }

// Exec becomes the program of [Command], and returns only where it cannot. Users outside its group get nothing of the
// files that it makes.
func Exec(args []string) error {
	if _, err := Keep(); err != nil {
		return err
	}
	return supervisor.Become(0o027, args[1:])
}
