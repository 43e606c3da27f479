package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Kill ends parts with SIGKILL; dev starts them again.
func (s *System) Kill(parts ...string) {
	for _, part := range parts {
		pid := s.Pid(part)
		if part == "postgres" { // the server is a child of its starter, which notices
			pid = s.Postmaster()
		}
		if pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be down already
		}
	}
}

// Postmaster is PostgreSQL's process id; 0 where it does not run.
func (s *System) Postmaster() int {
	raw, err := os.ReadFile(filepath.Join(s.Dir, "postgres", "data", "postmaster.pid"))
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

// Down kills parts, and keeps dev from starting them again while f runs.
func (s *System) Down(ctx context.Context, f func() error, parts ...string) error {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }() // it is our child, and lives
	pids := []int{}
	for _, part := range parts {
		pids = append(pids, s.Pid(part))
		if part == "postgres" {
			pids = append(pids, s.Postmaster())
		}
	}
	for _, pid := range pids {
		if pid > 1 {
			// With what it has started: a pg_ctl that is left over would start the server in the middle of f.
			_ = errors.Join(syscall.Kill(-pid, syscall.SIGKILL), syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	for _, pid := range pids {
		for t0 := time.Now(); Alive(pid); {
			if time.Since(t0) > 20*time.Second {
				return fmt.Errorf("process %d does not end", pid)
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return f()
}

// Alive says whether a process runs; one that nobody has waited for yet does not.
func Alive(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if pid < 2 || err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	return !strings.HasPrefix(after, "Z")
}

// dirs are where parts keep what they have.
var dirs = map[string]string{"nats": "nats", "postgres": "postgres/data"}

// Backup copies what nats or postgres keeps, while it is down, and returns the copy's place.
func (s *System) Backup(ctx context.Context, part, name string) (string, error) {
	to := filepath.Join(s.Dir, "backup-"+part+"-"+name)
	return to, copyDir(ctx, filepath.Join(s.Dir, dirs[part]), to)
}

// Restore puts a copy in the place of what a part keeps, while it is down.
func (s *System) Restore(ctx context.Context, part, from string) error {
	return copyDir(ctx, from, filepath.Join(s.Dir, dirs[part]))
}

// copyDir keeps owners: the database's user is another than ours.
func copyDir(ctx context.Context, from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy: %w\n%s", err, out)
	}
	return nil
}
