package bpf

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// What can go wrong outside of this package. Each is wrapped in an [*Error] that says what to do.
var (
	ErrPermission  = errors.New("not permitted")
	ErrNoBTF       = errors.New("the kernel has no BTF")
	ErrKernel      = errors.New("the kernel cannot run the program")
	ErrNoBPFFS     = errors.New("not a BPF file system")
	ErrNoInterface = errors.New("no such interface")
	ErrOccupied    = errors.New("another XDP program is attached")
	ErrMode        = errors.New("the driver cannot run XDP in this mode")
	ErrHardware    = errors.New("this program cannot run in hardware")
)

// Error is an operation that failed, and what an operator can do about it.
type Error struct {
	Op   string // "load", "pin", "attach"
	On   string // interface or path
	Err  error  // wraps one of the Err values
	Hint string // a sentence for the operator
}

func (e *Error) Error() string {
	s := e.Op
	if e.On != "" {
		s += " " + e.On
	}
	s += ": " + e.Err.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// permissionHint says what a process has to be given that the kernel does not let load or attach.
func permissionHint() string {
	hint := "run as root, or give CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (containers: --cap-add); kernel lockdown in " +
		"confidentiality mode forbids BPF"
	if l := lacking(); len(l) > 0 {
		return "this process lacks " + strings.Join(l, " and ") + ": " + hint
	}
	return hint
}

// lacking are those capabilities that loading takes and this thread has not. CAP_PERFMON is for the arithmetic with
// pointers by which a packet's length is known, and keeps the verifier from guarding each access against speculation.
// CAP_SYS_ADMIN stands for all of them, as it did before Linux 5.8.
func lacking() (names []string) {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return nil
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	if has(unix.CAP_SYS_ADMIN) {
		return nil
	}
	for _, c := range []struct {
		value int
		name  string
	}{{unix.CAP_BPF, "CAP_BPF"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_PERFMON, "CAP_PERFMON"}} {
		if !has(c.value) {
			names = append(names, c.name)
		}
	}
	return names
}
