// Package disktest gives tests small file systems that they can fill up: tmpfs, in a mount namespace of the test's
// own, so that they are gone with it however it ends.
package disktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// inside marks the process that has the namespace; hermetic lets it be.
const inside = "MARCHPROXY_DISKTEST"

var within = os.Getenv(inside) != ""

// capSysAdmin lets a process mount, in a user namespace of its own too.
const capSysAdmin = 21

// Main runs the program again in a mount namespace of its own, and run there: os.Exit(disktest.Main(m.Run)). It needs
// root, or a kernel that gives users namespaces of their own.
func Main(run func() int) int {
	if within {
		return run()
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{capSysAdmin}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "disktest: a mount namespace needs root, or kernel.unprivileged_userns_clone=1: %v\n", err)
		return 1
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "disktest:", err)
		return 1
	}
	return 0
}

// Disk is a small file system.
type Disk struct {
	// Dir is where it is mounted.
	Dir string
}

// Mount puts a file system of so many bytes over a directory, which must be there. [Main] must run.
func Mount(dir string, bytes int) (*Disk, error) {
	if !within {
		return nil, errors.New("disktest: Main does not run")
	}
	// What is mounted here is not to be seen outside.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("disktest: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		return nil, fmt.Errorf("disktest: mount: %w", err)
	}
	return &Disk{dir}, nil
}

// New is a small file system for the time of a test.
func New(t testing.TB, bytes int) *Disk {
	t.Helper()
	d, err := Mount(t.TempDir(), bytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Unmount takes it away, with all that is on it.
func (d *Disk) Unmount() error { return syscall.Unmount(d.Dir, syscall.MNT_DETACH) }

func (d *Disk) filler() string { return filepath.Join(d.Dir, "filler") }

// Fill leaves no byte on it.
func (d *Disk) Fill() error {
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("disktest: %w", err)
	}
	block := make([]byte, 64<<10)
	for size := len(block); size > 0; {
		switch _, err := f.Write(block[:size]); {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			return errors.Join(fmt.Errorf("disktest: %w", err), f.Close())
		}
	}
	return f.Close()
}

// Empty gives back what [Disk.Fill] has taken.
func (d *Disk) Empty() error { return os.Remove(d.filler()) }
