package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Listen opens a TCP port. Its error names the setting that chooses another, and who holds this one.
func Listen(ctx context.Context, addr, setting string) (net.Listener, error) {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err == nil {
		return lis, nil
	}
	_, port, splitErr := net.SplitHostPort(addr)
	n, convErr := strconv.Atoi(port)
	if errors.Is(err, syscall.EADDRINUSE) && splitErr == nil && convErr == nil {
		if who := Holder(n); who != "" {
			return nil, fmt.Errorf("cannot listen on %s, which %s holds (%w); stop that, or change %s", addr, who,
				syscall.EADDRINUSE, setting)
		}
	}
	return nil, fmt.Errorf("cannot listen on %s (%w); change it with %s", addr, err, setting)
}

// Holder is who listens on a TCP port: a process, or its user where the process is not ours to see; "" where
// nobody is found.
func Holder(port int) string {
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
	for _, pid := range Running() {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && sockets[to] {
				return Named(pid)
			}
		}
	}
	if u, err := user.LookupId(uid); err == nil {
		uid = u.Username
	}
	return "a process of the user " + uid
}

// Running are the ids of all processes.
func Running() []int {
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

// Named is a process as its user knows it: nginx (process 12).
func Named(pid int) string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(raw)), pid)
}
