// Package harness runs `marchproxy dev`, the real system, for tests and benchmarks: on free ports, with a
// state of its own, and with every child's process id at hand.
package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
	_ "github.com/marchproxy/marchproxy/pkg/hermetic" // what the user has set is for other programs
	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// System is a running system.
type System struct {
	Dir string
	// API, XDS and Admin are URLs, the last one of what is told of Envoy's admin interface; Proxy is host:port.
	API, XDS, Admin, Proxy string
	// UI is the web UI's own URL, by the name localhost: a browser keeps a session there.
	UI string
	// GRPC is the xDS server's host:port.
	GRPC      string
	ProxyPort int
	// trusted are the addresses that get the system's token.
	trusted  sync.Map
	natsPort int
	pgPort   int
	cmd      *exec.Cmd
	out      lines
	exited   chan error
	client   *http.Client
	token    atomic.Value
	args     []string
	env      []string
	bin      string
}

// Root is the repository's root.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("not inside the repository")
}

// Start runs a fresh system of [Programs], and waits until it is ready.
func Start(ctx context.Context, args ...string) (*System, error) { return StartIn(ctx, nil, args...) }

// StartIn is [Start] with settings (NAME=value) in the environment.
func StartIn(ctx context.Context, env []string, args ...string) (*System, error) {
	program, err := Program("marchproxy")
	if err != nil {
		return nil, err
	}
	p, err := porttest.Take(9)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "marchproxy-test-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the database's user must get in
		return nil, err
	}
	s := &System{
		Dir: dir, bin: program, ProxyPort: p[3], natsPort: p[5],
		pgPort: p[6], env: env,
	}
	s.args = append([]string{"dev", "--state-dir", dir}, args...)
	for i, flag := range []string{
		"--api-port", "--xds-grpc-port", "--xds-http-port", "--proxy-port", "--admin-port",
		"--nats-port", "--postgres-port", "--backend-port", "--ui-port",
	} {
		s.args = append(s.args, flag, strconv.Itoa(p[i]))
	}
	local := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p[i])) }
	s.GRPC = local(1)
	s.API, s.XDS, s.Proxy, s.Admin = "http://"+local(0), "http://"+local(2), local(3), "http://"+local(4)
	s.UI = fmt.Sprintf("http://localhost:%d", p[8])
	s.client = &http.Client{Timeout: 90 * time.Second, Transport: s}
	s.trusted.Store(local(0), true)
	s.trusted.Store(local(2), true)
	return s, s.Run(ctx)
}

// connections keeps one for each of many writers: the usual one keeps two, and makes the others anew each time.
var connections = &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute}

// RoundTrip sends a request as [System.HTTP] does.
func (s *System) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, ours := s.trusted.Load(r.URL.Host); ours && r.Header.Get("Authorization") == "" {
		token, err := s.Token()
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return connections.RoundTrip(r)
}

// HTTP is a client that names the system's token to its api and its xDS server where a request names none.
func (s *System) HTTP() *http.Client { return &http.Client{Transport: s} }

// Token is that of the role admin which dev made.
func (s *System) Token() (string, error) {
	if token, ok := s.token.Load().(string); ok {
		return token, nil
	}
	raw, err := os.ReadFile(s.TokenFile())
	token := strings.TrimSpace(string(raw))
	if err == nil {
		s.token.Store(token)
	}
	return token, err
}

// TokenFile holds [System.Token].
func (s *System) TokenFile() string { return filepath.Join(s.Dir, "token") }

// With adds flags to those that the next [System.Run] starts with; the last of two counts.
func (s *System) With(flags ...string) { s.args = append(s.args, flags...) }

// Setenv changes its environment from the next [System.Run] on.
func (s *System) Setenv(settings ...string) { s.env = append(s.env, settings...) }

// Run starts the system, again after [System.Stop] on the same state.
func (s *System) Run(ctx context.Context) error {
	if err := s.Begin(); err != nil {
		return err
	}
	return s.AwaitReady(ctx)
}

// AwaitReady waits after [System.Begin].
func (s *System) AwaitReady(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		if r, err := s.state(); err == nil && r.Ready {
			return nil
		}
		select {
		case err := <-s.exited:
			s.exited <- err
			return fmt.Errorf("marchproxy dev ended: %w\n%s", err, s.out.String())
		case <-limit.Done():
			return errors.Join(fmt.Errorf("marchproxy dev is not ready in time\n%s", s.out.String()), s.Stop())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Begin is [System.Run] without waiting for anything.
func (s *System) Begin() error {
	envoy, err := EnvoyPath() // not another one on PATH
	if err != nil {
		return err
	}
	s.cmd = exec.Command(s.bin, s.args...)
	s.cmd.Env = append(append(os.Environ(), "ENVOY_PATH="+envoy), s.env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := os.Remove(filepath.Join(s.Dir, "run.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.bin, err)
	}
	s.exited = make(chan error, 1)
	go func() { s.exited <- s.cmd.Wait() }()
	return nil
}

// Output is what dev has said so far.
func (s *System) Output() string { return s.out.String() }

// PostgresPort is the database's port.
func (s *System) PostgresPort() int { return s.pgPort }

// Dev is dev's own process id.
func (s *System) Dev() int { return s.cmd.Process.Pid }

// Crash kills dev, as a crash or a lack of memory does, and waits until it is gone.
func (s *System) Crash() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	s.exited <- <-s.exited
	return nil
}

type state struct {
	Pids  map[string]int `json:"pids"`
	Ready bool           `json:"ready"`
}

func (s *System) state() (state, error) {
	var r state
	raw, err := os.ReadFile(filepath.Join(s.Dir, "run.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(raw, &r)
}

// Pid of a child: postgres, nats, api, xds, envoy or backend; 0 while it is down.
func (s *System) Pid(name string) int {
	r, err := s.state()
	if err != nil {
		return 0
	}
	return r.Pids[name]
}

// Stop ends the system as Ctrl-C does and waits for it.
func (s *System) Stop() error {
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	err := <-s.exited
	s.exited <- err
	return err
}

// Close ends the system and removes its state.
func (s *System) Close() error { return errors.Join(s.Stop(), os.RemoveAll(s.Dir)) }

// Call sends JSON and returns the status and body; body may be nil, a string or a value.
func (s *System) Call(ctx context.Context, method, url string, body any) (int, []byte, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return 0, nil, err
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, raw, err
}

// AdminSocket is the whole of Envoy's admin interface, of which [System.Admin] passes a part.
func (s *System) AdminSocket() envoyadmin.Admin {
	return envoyadmin.New(filepath.Join(s.Dir, "admin.sock"))
}

// secret is one of those that dev made on its first run.
func (s *System) secret(name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(s.Dir, "secrets.json"))
	if err != nil {
		return "", err
	}
	secrets := map[string]string{}
	err = json.Unmarshal(raw, &secrets)
	return secrets[name], err
}

// NATS is the URL of the system's NATS, for the user who may do everything.
func (s *System) NATS() (string, error) {
	password, err := s.secret("NatsToken")
	return fmt.Sprintf("nats://dev:%s@127.0.0.1:%d", password, s.natsPort), err
}

// SecretKey is what its services seal with.
func (s *System) SecretKey() (string, error) { return s.secret("SecretKey") }

// ClusterKey is the key that the gateway default is opened with.
func (s *System) ClusterKey() (string, error) { return s.secret("ClusterKey") }

// CLI is a call of the command line against this system.
func (s *System) CLI(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Env = append(os.Environ(), "MARCHPROXY_API="+s.API, "MARCHPROXY_XDS="+s.XDS, "MARCHPROXY_ENVOY_ADMIN="+s.Admin,
		"MARCHPROXY_TOKEN_FILE="+s.TokenFile())
	return cmd
}

// Doctor runs `marchproxy doctor` until all parts agree, or fails with its last words.
func (s *System) Doctor(ctx context.Context, patience time.Duration) error {
	url, err := s.NATS()
	if err != nil {
		return err
	}
	for t0 := time.Now(); ; {
		cmd := s.CLI(ctx, "doctor")
		cmd.Env = append(cmd.Env, "NATS_URL="+url)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		if time.Since(t0) > patience {
			return fmt.Errorf("doctor: %w\n%s", err, out)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
