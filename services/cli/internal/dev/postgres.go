package dev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// planPostgres prepares the embedded PostgreSQL: its directories, and the user that it runs as.
func (s *system) planPostgres() error {
	dir := filepath.Join(s.StateDir, "postgres")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The archive is shared by every state directory.
	cache := filepath.Join(s.Cache, "postgres")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, "cache")); errors.Is(err, fs.ErrNotExist) {
		if err := os.Symlink(cache, filepath.Join(dir, "cache")); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dir, readyMarker)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // a run that was killed has left it
	}
	root := os.Geteuid() == 0
	if root {
		for _, d := range []string{dir, cache} {
			if closed := closedTo(d); closed != "" {
				return fmt.Errorf(
					"PostgreSQL refuses to run as root, and the user it runs as instead (nobody) cannot enter %s; chmod o+x %s, or "+
						"choose other places with --state-dir and --cache-dir",
					closed,
					closed,
				)
			}
		}
		for _, d := range []string{dir, cache} {
			if err := os.Chown(d, nobody, nobody); err != nil {
				return err
			}
		}
	}
	if entries, err := os.ReadDir(cache); err == nil && len(entries) == 0 {
		s.say("fetching PostgreSQL 17 (15 MB, once)")
	} else if _, err := os.Stat(filepath.Join(dir, "data")); errors.Is(err, fs.ErrNotExist) {
		s.say("making the database (once)")
	}
	start := s.self(nil, "postgres", strconv.Itoa(s.PGPort), dir)
	s.children = append(s.children, &child{
		name: "postgres", ready: postgresReady(dir, tcpOK(local(s.PGPort))),
		make: func() *exec.Cmd {
			cmd := start()
			cmd.Dir, cmd.Env = dir, s.postgresEnviron("MARCHPROXY_PG_PASSWORD="+s.secrets.PGPassword, "HOME="+dir, "TMPDIR="+dir)
			if root {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
				if path, err := reachable(cmd.Path, s.StateDir); err == nil {
					cmd.Path = path
				}
			}
			return cmd
		},
	})
	return nil
}

// reachable is a copy of this program that an unprivileged user can execute: the original may lie below a
// directory that is closed to others.
func reachable(path, dir string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, "postgres-starter")
	if err := os.WriteFile(to+".new", raw, 0o755); err != nil {
		return "", err
	}
	return to, os.Rename(to+".new", to)
}

// closedTo is the first directory above a path that others cannot pass through; "" where there is none.
func closedTo(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	closed := ""
	for d := filepath.Dir(path); d != "/"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&0o001 == 0 {
			closed = d
		}
	}
	return closed
}
