package server

import (
	"context"

	"github.com/marchproxy/marchproxy/pkg/identity"
)

// Health asks the xDS server that runs with this environment whether it is ready; an error says why not.
func Health(ctx context.Context, lookup func(string) (string, bool)) error {
	cfg, err := readConfig(lookup)
	if err != nil {
		return err
	}
	return identity.Ready(ctx, cfg.HTTPAddr, cfg.Identity.Files)
}
