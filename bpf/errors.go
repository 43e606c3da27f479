package bpf

import "errors"

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
