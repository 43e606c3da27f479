package bench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/floor"
	"github.com/marchproxy/marchproxy/test/harness"
)

// PSS is a process's proportional memory, in MB of a million bytes.
func PSS(pid int) float64 {
	return float64(field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")) * 1024 / 1e6
}

// Threads are a process's.
func Threads(pid int) int { return field(fmt.Sprintf("/proc/%d/status", pid), "Threads:") }

// field is the number after a word that begins a line; 0 where the process is gone.
func field(path, word string) int {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, word); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0]) // the kernel writes numbers
			return n
		}
	}
	return 0
}

// Files is how many file descriptors a process has open.
func Files(pid int) int {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0
	}
	return len(list)
}

// CPU is the time that a process, and its children that live, have spent on the CPUs.
func CPU(pid int) time.Duration {
	sum := floor.CPU(pid)
	all, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is fine
	for _, path := range all {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(raw), ") ")
		if f := strings.Fields(after); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))) // the kernel writes numbers
			sum += floor.CPU(child)
		}
	}
	return sum
}

// Metric reads one figure of a Prometheus page; ok is false where it is not there.
func Metric(ctx context.Context, s *harness.System, url, name string) (value float64, ok bool) {
	status, body, err := s.Call(ctx, http.MethodGet, url, nil)
	if err != nil || status != http.StatusOK {
		return 0, false
	}
	for line := range strings.Lines(string(body)) {
		rest, found := strings.CutPrefix(line, name+" ")
		if !found {
			continue
		}
		value, err = strconv.ParseFloat(strings.TrimSpace(rest), 64)
		return value, err == nil
	}
	return 0, false
}
