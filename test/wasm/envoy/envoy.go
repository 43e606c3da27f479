// Package envoy runs a real Envoy with the filters in a static chain, for tests and benchmarks of the
// filters alone: without the control plane, on ports that the system chooses.
package envoy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// Route is a route before the one that takes everything.
type Route struct {
	// Match is Envoy's RouteMatch.
	Match map[string]any
	// Name is what the filters read: service|route|policy|features, as translate.RouteName has it.
	Name string
	// Metadata are what the control plane says of a route in its own space: route and service.
	Metadata map[string]any
}

// Config says what Envoy runs.
type Config struct {
	// Backend is a port on 127.0.0.1.
	Backend int
	// Filters in their order; the router comes after them.
	Filters []Filter
	// Native filters come before them, as Envoy's configuration has them.
	Native []any
	// NativeMetrics has Envoy count requests as a gateway's metrics_engine native does.
	NativeMetrics bool
	Routes        []Route
	// PerAddress limits the connections of each address, where it is not 0.
	PerAddress uint32
	// Direct lets Envoy answer 200 by itself; Backend is then not asked.
	Direct bool
	// Quiet flushes statistics every 5 seconds, as Envoy does by default, and not 50 times as often.
	Quiet bool
	// Concurrency is the number of workers, 1 if it is 0.
	Concurrency int
}

// Proxy is a running Envoy.
type Proxy struct {
	// URL and Admin are the listener's and the admin's addresses, as http://host:port.
	URL, Admin string
	// PID is the process.
	PID int

	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan error
	dir  string
}

// Start runs Envoy and waits until it is live.
func Start(ctx context.Context, c Config) (*Proxy, error) {
	root, err := harness.Root()
	if err != nil {
		return nil, err
	}
	path, err := harness.EnvoyPath()
	if err != nil {
		return nil, err
	}
	b, err := bootstrap(c, filepath.Join(root, "wasm-filters", "dist"))
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	p := &Proxy{done: make(chan error, 1)}
	if p.dir, err = os.MkdirTemp("", "wasm-envoy"); err != nil {
		return nil, err
	}
	config, admin := filepath.Join(p.dir, "envoy.json"), filepath.Join(p.dir, "admin")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	p.cmd = exec.Command(path, "-c", config, "--disable-hot-restart",
		"--concurrency", strconv.Itoa(max(1, c.Concurrency)), "--admin-address-path", admin, "--log-level", "warning")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	p.PID = p.cmd.Process.Pid
	go func() { p.done <- p.cmd.Wait() }()
	if err := p.ready(ctx, admin); err != nil {
		p.Stop()
		return nil, fmt.Errorf("%w; Envoy wrote:\n%s", err, p.log.String())
	}
	return p, nil
}

func (p *Proxy) ready(ctx context.Context, admin string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-p.done:
			p.done <- err
			return fmt.Errorf("envoy ended: %w", errors.Join(err, io.EOF))
		case <-tick.C:
		}
		address, err := os.ReadFile(admin)
		if err != nil || len(address) == 0 {
			continue
		}
		p.Admin = "http://" + string(address)
		if live, err := p.Get("/ready"); err != nil || live != "LIVE\n" {
			continue
		}
		listeners, err := p.Get("/listeners")
		if err != nil {
			return err
		}
		// main::127.0.0.1:41234
		_, address2, _ := strings.Cut(strings.TrimSpace(listeners), "::")
		p.URL = "http://" + address2
		return nil
	}
}

// Get asks the admin interface.
func (p *Proxy) Get(path string) (string, error) {
	resp, err := http.Get(p.Admin + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

var failing = regexp.MustCompile(`(?m)^(wasm|http\.main\.wasm)\.[^ ]*(fail|error|crash|reload|missing|refused)[^ ` +
	`]*: [1-9].*$`)

// Failures lists the counters of failures of wasm that are not 0.
func (p *Proxy) Failures() ([]string, error) {
	stats, err := p.Get("/stats")
	if err != nil {
		return nil, err
	}
	if !strings.Contains(stats, "wasm.envoy.wasm.runtime.v8.created") {
		return nil, errors.New("no counters of wasm in Envoy")
	}
	return failing.FindAllString(stats, -1), nil
}

// Stop ends Envoy and gives what it wrote to its log.
func (p *Proxy) Stop() string {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	p.done <- <-p.done
	_ = os.RemoveAll(p.dir)
	return p.log.String()
}
