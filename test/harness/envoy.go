package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// Envoy is one of the gateway default beside that of dev, on the same ports: the kernel distributes new connections over
// all of them.
type Envoy struct {
	// Admin is the URL of its admin interface.
	Admin string
	cmd   *exec.Cmd
	dir   string
	log   lines
}

// StartEnvoy runs an Envoy with a name of its own against an xDS server, and does not wait until it serves.
func (s *System) StartEnvoy(ctx context.Context, id, grpc string) (*Envoy, error) {
	path, err := EnvoyPath()
	if err != nil {
		return nil, err
	}
	ports, err := porttest.Take(1)
	if err != nil {
		return nil, err
	}
	admin := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	key, err := s.ClusterKey()
	if err != nil {
		return nil, err
	}
	raw, err := bootstrap.Render(bootstrap.Config{
		NodeID: id, Gateway: "default", XDSServer: grpc, APIKey: key, AdminAddr: admin, LogFile: true,
	})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "marchproxy-envoy-")
	if err != nil {
		return nil, err
	}
	boot := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(boot, raw, 0o600); err != nil {
		return nil, err
	}
	e := &Envoy{Admin: "http://" + admin, dir: dir, cmd: exec.CommandContext(context.WithoutCancel(ctx), path, "-c", boot,
		"--concurrency", "1", "--disable-hot-restart", "--log-level", "error")}
	e.cmd.Stdout, e.cmd.Stderr, e.cmd.Dir = &e.log, &e.log, dir
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start another Envoy: %w", err)
	}
	return e, nil
}

// Pid is its process.
func (e *Envoy) Pid() int { return e.cmd.Process.Pid }

// Close kills it.
func (e *Envoy) Close() {
	_ = e.cmd.Process.Kill() // it may have ended
	_ = e.cmd.Wait()         // killed
	_ = os.RemoveAll(e.dir)  // a leftover in the temporary directory does no harm
}
