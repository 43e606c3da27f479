// Package porttest gives tests of any module, and of any process, ports of their own.
package porttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// lowest is the first port that is given away, above those that programs are usually configured with.
const lowest = 12000

// Take returns n TCP ports, on which nobody listens at any IPv4 address, for as long as this process lives.
//
// A port that the kernel finds (port 0) can be lost again before its user listens on it, to any connection that
// goes out in the meantime. So these come from below the range that the kernel takes the ports of connections
// from (ip_local_port_range), and a locked file keeps each from the other processes that ask here.
func Take(n int) ([]int, error) {
	above, err := ephemeral()
	if err != nil {
		return nil, err
	}
	if above-lowest < 1000 {
		return nil, fmt.Errorf("net.ipv4.ip_local_port_range starts at %d and leaves too few ports above %d", above, lowest)
	}
	dir := filepath.Join(os.TempDir(), "marchproxy-test-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o777); err != nil && !errors.Is(err, os.ErrPermission) { // other users' tests lock here too
		return nil, err
	}
	out := make([]int, 0, n)
	for range 100 * (n + 1) {
		if len(out) == n {
			return out, nil
		}
		port := lowest + rand.IntN(above-lowest)
		mine, err := reserve(filepath.Join(dir, strconv.Itoa(port)))
		if err != nil {
			return nil, err
		}
		if mine && free(port) {
			out = append(out, port)
		}
	}
	return nil, fmt.Errorf("found %d free ports between %d and %d, want %d", len(out), lowest, above, n)
}

// ephemeral is where the ports begin that the kernel gives to connections.
func ephemeral() (int, error) {
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, err
	}
	var low, high int
	_, err = fmt.Sscan(string(raw), &low, &high)
	return low, err
}

// reserve locks a port's file until the process ends; false is a port of another process, or of this one.
func reserve(path string) (bool, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CREAT|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return false, fmt.Errorf("open %s: %w", path, err)
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return false, syscall.Close(fd)
	}
	return true, nil // the descriptor stays open: with it goes the lock
}

func free(port int) bool {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(port)))
	return err == nil && l.Close() == nil
}
