// Package together runs the api and an xDS server in one container, as the integration guide does: both programs as
// they are, side by side, of which the end of one is the end of the other.
package together

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/services/api/internal/server"
)

// settings are the xDS server's ports: where one of them is set, somebody wants it here.
var settings = []string{"XDS_GRPC_PORT", "XDS_GRPC_ADDR", "XDS_HTTP_PORT", "XDS_HTTP_ADDR"}

// grace is how long the xDS server may take to end.
const grace = 8 * time.Second

// Run serves the api, and starts marchproxy-xds beside it where its ports are set, with the same environment.
func Run(ctx context.Context, lookup func(string) (string, bool)) error {
	e := process.NewEnv(lookup)
	wanted := false
	for _, name := range settings {
		wanted = wanted || e.String(name, "") != ""
	}
	if !wanted {
		return server.Run(ctx, lookup)
	}
	own, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find marchproxy-xds: %w", err)
	}
	var group process.Group
	group.Add("api", func(ctx context.Context) error { return server.Run(ctx, lookup) })
	group.Add("marchproxy-xds", func(ctx context.Context) error {
		return beside(ctx, filepath.Join(filepath.Dir(own), "marchproxy-xds"))
	})
	return group.Run(ctx)
}

// beside runs a program until the context ends. Its own end is an error: nobody would serve Envoys then.
func beside(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, path)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was told to end
	}
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return err
}
