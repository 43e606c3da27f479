package floor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
)

// Envoy is an Envoy that a test runs by itself.
type Envoy struct {
	cmd *exec.Cmd
	dir string
}

// StartEnvoy runs an Envoy against an xDS server.
func StartEnvoy(ctx context.Context, bin, xds, admin string, concurrency int) (*Envoy, error) {
	dir, err := os.MkdirTemp("", "marchproxy-envoy-")
	if err != nil {
		return nil, err
	}
	raw, err := bootstrap.Render(bootstrap.Config{XDSServer: xds, AdminAddr: admin, LogFile: true})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "envoy.log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, bin, "-c", path, "--concurrency", strconv.Itoa(concurrency), "--log-level", "warning",
		"--disable-hot-restart")
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &Envoy{cmd, dir}, cmd.Start()
}

// Pid of the process.
func (e *Envoy) Pid() int { return e.cmd.Process.Pid }

// Close kills it.
func (e *Envoy) Close() {
	_ = e.cmd.Process.Kill() // it may have ended
	_ = e.cmd.Wait()         // killed
	_ = os.RemoveAll(e.dir)  // a leftover in the temporary directory does no harm
}

// CPU is the time that a process has spent on the CPUs.
func CPU(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.Atoi(f[11])   // the kernel writes numbers
	system, _ := strconv.Atoi(f[12]) // the kernel writes numbers
	return time.Duration(user+system) * 10 * time.Millisecond
}

// RSS is a process's resident memory, in MiB.
func RSS(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			k, _ := strconv.Atoi(strings.Fields(rest)[0]) // the kernel writes numbers
			return k / 1024
		}
	}
	return 0
}
