package dev

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// processes are the ids of all processes.
func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// runs says whether a process does something still: one that has ended may be waiting for its parent.
func runs(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}

// named is a process as its user knows it.
func named(pid int) string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(raw)), pid)
}

// holder is who listens on a TCP port: a process, or the user where the process is not ours to see; "" where
// nobody is found.
func holder(port int) string {
	sockets := map[string]bool{}
	uid := ""
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		raw, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line) // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
			const listen = "0A"
			if len(f) < 10 || f[3] != listen || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			sockets["socket:["+f[9]+"]"] = true
			uid = f[7]
		}
	}
	if len(sockets) == 0 {
		return ""
	}
	for _, pid := range processes() {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && sockets[to] {
				return named(pid)
			}
		}
	}
	if u, err := user.LookupId(uid); err == nil {
		uid = u.Username
	}
	return "a process of the user " + uid
}

// has says whether a process was started with a setting in its environment.
func has(pid int, setting string) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	for one := range bytes.SplitSeq(raw, []byte{0}) {
		if string(one) == setting {
			return true
		}
	}
	return false
}

// worksIn says whether a directory is a process's own, as the data directory is of a PostgreSQL's.
func worksIn(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == dir
}
