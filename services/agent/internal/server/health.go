package server

import (
	"context"
	"net"

	"github.com/marchproxy/marchproxy/pkg/identity"
)

// Health asks the agent that runs with this environment whether its node may get traffic; an error says why not.
func Health(ctx context.Context, lookup func(string) (string, bool)) error {
	cfg, err := readConfig(lookup)
	if err != nil {
		return err
	}
	var id *identity.Identity
	if host, _, err := net.SplitHostPort(cfg.HTTPAddr); err == nil && !identity.Loopback(host) {
		if id, err = identity.Open(cfg.Identity.Files); err != nil {
			return err
		}
	}
	return identity.Ready(ctx, cfg.HTTPAddr, id)
}
