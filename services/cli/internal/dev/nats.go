package dev

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// enough is how much room a disk must have for NATS to be restarted, in bytes: without any it would not start.
const enough = 1 << 20

// watchNats returns when the context ends, with nil, or when NATS is to be started again: after an error of its disk it
// refuses every write of a stream for ever, though there is room.
func watchNats(ctx context.Context, s *server.Server, dir string) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for well, ill := false, 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		h := s.Healthz(&server.HealthzOptions{})
		if h.Error == "" {
			well, ill = true, 0
			continue
		}
		var disk syscall.Statfs_t
		if err := syscall.Statfs(dir, &disk); err != nil || disk.Bavail*uint64(disk.Bsize) < enough {
			ill = 0
			continue
		}
		if ill++; well && ill == 2 {
			return fmt.Errorf("NATS takes no messages: %s. There is room on its disk; starting it again", h.Error)
		}
	}
}
