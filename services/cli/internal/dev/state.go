package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// open takes the state directory for this run, and ends what an earlier one has left. The lock goes with the file.
func (s *system) open(ctx context.Context) (lock *os.File, err error) {
	openMask()
	for _, path := range []*string{&s.StateDir, &s.Cache, &s.logs} { // Envoy is started in another directory than this
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, fmt.Errorf("state directory: %w; --state-dir names another", err)
		}
	}
	if err := os.MkdirAll(s.logs, 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w; --state-dir names another", err)
	}
	if s.root, err = filepath.EvalSymlinks(s.StateDir); err == nil {
		s.root, err = filepath.Abs(s.root)
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w; --state-dir names another", err)
	}
	if lock, err = s.lock(); err != nil {
		return nil, err
	}
	if err := s.stopLeftovers(ctx); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// openMask lets PostgreSQL's user into what is made here, whatever the mask is that this was started with; what is
// secret says so itself.
func openMask() { syscall.Umask(0o022) }

// lockFile is locked by the dev that has the state directory.
const lockFile = "lock"

// lock keeps a second dev from the same state. The file names the first.
func (s *system) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.StateDir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w; run as the user whose it is, or use another --state-dir", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		who := "marchproxy dev"
		if raw, err := io.ReadAll(f); err == nil && len(raw) > 0 {
			who += " (process " + strings.TrimSpace(string(raw)) + ")"
		}
		return nil, errors.Join(fmt.Errorf("another %s runs on %s; stop it, or use another --state-dir", who, s.StateDir),
			f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state directory: %w; --state-dir names another", err), f.Close())
	}
	return f, nil
}
