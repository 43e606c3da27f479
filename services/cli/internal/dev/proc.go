package dev

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// runs says whether a process does something still: one that has ended may be waiting for its parent.
func runs(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
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
