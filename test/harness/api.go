package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// API is an api beside the system's own, on the same database and the same NATS.
type API struct {
	// URL is where it serves.
	URL string
	cmd *exec.Cmd
	log lines
}

// StartAPI runs another api and waits until it is ready.
func (s *System) StartAPI(ctx context.Context) (*API, error) {
	ports, err := porttest.Take(1)
	if err != nil {
		return nil, err
	}
	nats, err := s.NATS()
	if err != nil {
		return nil, err
	}
	key, err := s.secret("SecretKey")
	if err != nil {
		return nil, err
	}
	password, err := s.secret("PGPassword")
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	s.trusted.Store(addr, true)
	a := &API{URL: "http://" + addr, cmd: exec.CommandContext(ctx, filepath.Join(filepath.Dir(s.bin), "marchproxy-api"))}
	a.cmd.Env = []string{
		"API_ADDR=" + addr, "NATS_URL=" + nats, "SECRET_KEY=" + key, "ALLOW_ENDPOINTS=loopback",
		"LOGLEVEL=warn",
		fmt.Sprintf("DATABASE_URL=postgresql://marchproxy:%s@127.0.0.1:%d/marchproxy?sslmode=disable", password, s.pgPort),
	}
	a.cmd.Stdout, a.cmd.Stderr = &a.log, &a.log
	if err := a.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the second api: %w", err)
	}
	limit, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	err = Await(limit, func() bool {
		status, _, err := s.Call(limit, http.MethodGet, a.URL+"/readyz", nil)
		return err == nil && status == http.StatusOK
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the second api does not get ready: %w\n%s", err, a.log.String()), a.Stop())
	}
	return a, nil
}

// Stop ends it.
func (a *API) Stop() error {
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := a.cmd.Wait(); err != nil {
		return fmt.Errorf("the second api: %w\n%s", err, a.log.String())
	}
	return nil
}
