// Package initproc is what process 1 of a container owes the others: it takes in orphans, and passes
// signals on. The agent itself runs as its child, so that waiting for Envoy and waiting for orphans are
// two processes' business and cannot take each other's children.
package initproc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/marchproxy/marchproxy/services/agent/internal/privilege"
)

// Run starts the program again as a child and returns its exit status when it has ended. Orphans are
// reaped meanwhile.
func Run(args []string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("find the program: %w", err)
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	defer signal.Stop(signals)
	cmd := exec.Command(self, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start: %w", err)
	}
	if _, err := privilege.Keep(); err != nil {
		_ = cmd.Process.Kill() // nobody would bury what it leaves
		return 1, err
	}
	for sig := range signals {
		switch sig {
		case syscall.SIGCHLD:
			if status, ended := reap(cmd.Process.Pid); ended {
				return status, nil
			}
		case syscall.SIGURG, syscall.SIGPIPE: // the Go runtime's own
		default:
			_ = cmd.Process.Signal(sig) // it may be ending just now
		}
	}
	return 1, errors.New("signals have ended")
}

// reap waits for every child that has ended; the status is that of one of them, as a shell says it.
func reap(main int) (status int, ended bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return status, ended
		}
		if pid == main {
			status, ended = ws.ExitStatus(), true
			if ws.Signaled() {
				status = 128 + int(ws.Signal())
			}
		}
	}
}
