package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/measure"
)

// schemes of the protocols: HTTP/1.1 and HTTP/2 without TLS, HTTP/1.1 with it.
var schemes = map[string]string{"http1": "http", "http2": "http", "tls": "https"}

// Connections, and at HTTP/2 requests at a time on each: 32 requests at a time everywhere.
var (
	connections = map[string]int{"http1": 32, "http2": 4, "tls": 32}
	streams     = map[string]int{"http1": 1, "http2": 8, "tls": 1}
)

// sample is one turn of a proxy.
type sample struct {
	rps, cpu float64 // requests a second, microseconds of CPU time a request
	p50, p99 float64 // milliseconds
	busy     float64 // share of its CPU
}

// turn has h2load send requests for a while, and fails where one is not answered with 200.
func turn(
	ctx context.Context, dir string, s *subject, protocol string, slice time.Duration, rate float64,
) (sample, error) {
	log := filepath.Join(dir, "h2load.log")
	if err := os.Remove(log); err != nil && !errors.Is(err, os.ErrNotExist) {
		return sample{}, err
	}
	c := connections[protocol]
	args := []string{
		"-t1", "-c", strconv.Itoa(c), "-m", strconv.Itoa(streams[protocol]), "--log-file", log,
		"--connect-to", fmt.Sprintf("127.0.0.1:%d", s.ports[protocol]),
	}
	if protocol != "http2" {
		args = append(args, "--h1")
	}
	if rate > 0 {
		// A number of requests, since with a duration h2load counts none before its first second is over.
		args = append(args, "--rps", strconv.FormatFloat(max(rate/float64(c), 1), 'f', 1, 64),
			"-n", strconv.Itoa(max(int(rate*slice.Seconds()), c)))
	} else {
		args = append(args, "-D", strconv.FormatFloat(slice.Seconds(), 'f', -1, 64))
	}
	for _, h := range s.headers {
		args = append(args, "-H", h)
	}
	before, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	from := time.Now()
	out, err := exec.CommandContext(ctx, "h2load", append(args, schemes[protocol]+"://"+s.host+"/")...).CombinedOutput()
	took := time.Since(from)
	if err != nil {
		return sample{}, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	after, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	times, err := answers(log)
	if err != nil {
		return sample{}, fmt.Errorf("%w\n%s", err, out)
	}
	// A number of requests is sent as fast as it can where a rate is not kept, so that the time is the real one.
	n := float64(len(times))
	return sample{
		rps: n / took.Seconds(), cpu: float64(after-before) / 1000 / n, busy: float64(after-before) / float64(took),
		p50: times[len(times)/2] / 1000, p99: times[len(times)*99/100] / 1000,
	}, nil
}

// answers are how long they took, in microseconds, in order.
func answers(log string) ([]float64, error) {
	raw, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	var out []float64
	for scan := bufio.NewScanner(bytes.NewReader(raw)); scan.Scan(); {
		f := strings.Fields(scan.Text())
		if len(f) < 3 || f[1] != "200" {
			return nil, fmt.Errorf("an answer is not 200: %q", scan.Text())
		}
		t, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, errors.New("there is no answer")
	}
	slices.Sort(out)
	return out, nil
}

// cpu is the time that the proxy's processes have spent on a CPU, in nanoseconds.
func (s *subject) cpu() (int64, error) {
	var sum int64
	for _, pid := range s.pids {
		n, err := measure.CPU(pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
