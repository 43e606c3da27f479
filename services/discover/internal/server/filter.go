package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/marchproxy/marchproxy/pkg/process"

	"github.com/marchproxy/marchproxy/services/discover/internal/docker"
)

// Filter serves, on a Unix socket, the part of a Docker engine's API that this program needs, until the context ends.
func Filter(ctx context.Context, lookup func(string) (string, bool)) error {
	e := process.NewEnv(lookup)
	host := e.String("DOCKER_HOST", "unix:///var/run/docker.sock")
	path := e.String("DISCOVER_FILTER_SOCKET", "/run/marchproxy-discover/docker.sock")
	log, err := process.Logger(e.String("LOGLEVEL", "info"))
	if err != nil {
		return err
	}
	if err := e.Err(); err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	h, err := docker.Filter(host)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) { // of an earlier life
		return fmt.Errorf("DISCOVER_FILTER_SOCKET: %w", err)
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("DISCOVER_FILTER_SOCKET: %w", err)
	}
	// Whoever reaches the directory may read; what can be read is the list of containers.
	if err := os.Chmod(path, 0o666); err != nil {
		return err
	}
	log.Info("passing on what discovery needs of " + host + " at " + path)
	return process.ServeHTTP(ctx, lis, h, 0, time.Second) // a read timeout would end the events
}
