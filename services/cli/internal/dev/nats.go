package dev

import (
	"context"
	"fmt"
	"strings"
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
	for ill := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		h := s.Healthz(&server.HealthzOptions{})
		var disk syscall.Statfs_t
		switch err := syscall.Statfs(dir, &disk); {
		case s.JetStreamEnabled() && !strings.Contains(h.Error, "write error"): // what else there may be, a start does not cure
			ill = 0
		case err != nil, disk.Bavail*uint64(disk.Bsize) < enough:
			ill = 0
		default:
			ill++
		}
		if ill == 2 {
			return fmt.Errorf("NATS takes no messages: %s. There is room on its disk; starting it again", h.Error)
		}
	}
}
