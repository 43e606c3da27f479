package bench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/floor"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/measure"
)

// PSS is a process's proportional memory, in MB of a million bytes.
func PSS(pid int) float64 {
	n, _ := measure.PSS(pid) // 0 where the process is gone
	return float64(n) / 1e6
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
func CPU(pid int) (sum time.Duration) {
	all, err := measure.Family(pid)
	if err != nil {
		return floor.CPU(pid)
	}
	for _, p := range all {
		sum += floor.CPU(p)
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
