package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// marker is in the environment of every child: what a killed run has left is found by it.
const marker = "MARCHPROXY_DEV_STATE"

// farewell is how long a process that was left may take to end after it was told to.
const farewell = 10 * time.Second

// stopLeftovers ends what an earlier run on the same state has left, which was killed: PostgreSQL, which is a
// daemon, and whatever has not yet died with its parent. The state is locked: nobody else can be using them.
func (s *system) stopLeftovers(ctx context.Context) error {
	data := filepath.Join(s.root, "postgres", "data")
	for {
		postmaster := pidIn(filepath.Join(data, pidFile))
		var left []int
		var names []string
		for _, pid := range process.Running() {
			if pid == os.Getpid() || !runs(pid) {
				continue
			}
			// its children end with it
			if inData := worksIn(pid, data); inData && pid == postmaster || !inData && has(pid, s.mark()) {
				left = append(left, pid)
				names = append(names, process.Named(pid))
			}
		}
		if len(left) == 0 {
			return s.forgetPostmaster(data)
		}
		s.say("stopping what an earlier run has left, which was killed: " + strings.Join(names, ", "))
		for _, pid := range left {
			signal := syscall.SIGTERM
			if pid == postmaster {
				signal = syscall.SIGINT // PostgreSQL waits for its clients on the other one
			}
			if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("%s was left by an earlier run and cannot be stopped (%w); stop it, or use another --state-dir",
					process.Named(pid), err)
			}
		}
		if err := ended(ctx, left); err != nil {
			return err
		}
	}
}

// mark is the setting that this state's processes are known by.
func (s *system) mark() string { return marker + "=" + s.root }

// ended waits until processes are gone, and kills those that take too long.
func ended(ctx context.Context, pids []int) error {
	late := time.After(farewell)
	for _, pid := range pids {
		for runs(pid) {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-late:
				for _, p := range pids {
					_ = syscall.Kill(p, syscall.SIGKILL) // it may have ended
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// pidFile is PostgreSQL's, in its data directory.
const pidFile = "postmaster.pid"

// pidIn is the process that a PostgreSQL's file names; 0 where there is none.
func pidIn(path string) int {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return pid
}

// forgetPostmaster removes the file of a server that is gone where its number is another process's now, as in a
// container that is started again: PostgreSQL would take that one for itself and not start. While any process works
// in the data directory the file stays: it keeps a second server away from the first one's orphans.
func (s *system) forgetPostmaster(data string) error {
	path := filepath.Join(data, pidFile)
	pid := pidIn(path)
	if pid == 0 || !runs(pid) {
		return nil // PostgreSQL sees that by itself
	}
	for _, p := range process.Running() {
		if worksIn(p, data) {
			return nil
		}
	}
	s.say(fmt.Sprintf("%s is of a server that was killed; its number is that of %s now. Removing it", path,
		process.Named(pid)))
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sweep removes from the cache, which other runs share, what downloads that were killed have left: an hour is more
// than one takes.
func (s *system) sweep() {
	for _, pattern := range []string{".envoy-*", "postgres/temp_*"} {
		left, err := filepath.Glob(filepath.Join(s.Cache, pattern))
		if err != nil {
			continue
		}
		for _, path := range left {
			if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > time.Hour {
				_ = os.RemoveAll(path) // it takes room and does no other harm
			}
		}
	}
}

// unfinished is a file that lists what is being made in a directory, for as long as it takes.
const unfinished = "unfinished"

// discardUnfinished removes what a run that was killed has left half made in PostgreSQL's directory, where half
// looks like whole to those who come later, and notes what will be made now.
func discardUnfinished(dir string, whole map[string]string) error {
	list := filepath.Join(dir, unfinished)
	raw, err := os.ReadFile(list)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for name := range strings.Lines(string(raw)) {
		if name = strings.TrimSpace(name); whole[name] != "" {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	// of an archive that was being unpacked; of each start
	for _, pattern := range []string{"temp_*", "embedded_postgres_log*"} {
		if err := removeOthers(dir, pattern, ""); err != nil {
			return err
		}
	}
	var missing strings.Builder
	for name, sign := range whole {
		if _, err := os.Stat(filepath.Join(dir, name, sign)); errors.Is(err, fs.ErrNotExist) {
			missing.WriteString(name + "\n")
		}
	}
	return os.WriteFile(list, []byte(missing.String()), 0o600)
}

// removeOthers removes what is in a directory by a pattern of names, but one.
func removeOthers(dir, pattern, but string) error {
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return err
	}
	for _, path := range found {
		if filepath.Base(path) != but {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}
