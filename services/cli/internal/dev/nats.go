package dev

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/marchproxy/marchproxy/services/cli/internal/pki"
)

// natsUsersSetting has the part of nats-server's configuration that says who may do what.
const natsUsersSetting = "MARCHPROXY_NATS_USERS"

// natsUsers are the users of dev's NATS, as `marchproxy pki` makes them, so that a right that is missing shows here;
// and the seeds by which the api and the xDS server are two of them, new ones each time. The third is for people and
// tests.
func (s *system) natsUsers() (config string, seeds map[string]string, err error) {
	seeds = map[string]string{}
	var parts []pki.Issued
	for _, role := range []string{pki.API, pki.XDS} {
		seed, public, err := pki.NewNKey()
		if err != nil {
			return "", nil, err
		}
		seeds[role] = string(seed)
		parts = append(parts, pki.Issued{Role: role, Name: ownID, NKey: public})
	}
	raw, err := pki.NATSUsers(parts, natsOwner, s.secrets.NatsToken)
	return string(raw), seeds, err
}

// natsOwner is the user who may do everything, ownID by which the xDS server is known, and envoyID the Envoy.
const (
	natsOwner = "dev"
	ownID     = "dev"
	envoyID   = "marchproxy-node"
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
		case s.JetStreamEnabled() && !strings.Contains(h.Error, "write error"):
			// what else there may be, a start does not cure
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
