package server

import (
	"context"

	"github.com/marchproxy/marchproxy/pkg/identity"
)

// Health asks the agent that runs with this environment whether its node may get traffic; an error says why not.
func Health(ctx context.Context, lookup func(string) (string, bool)) error {
	cfg, err := readConfig(lookup)
	if err != nil {
		return err
	}
	files := cfg.Identity.Files
	if identity.LoopbackAddr(cfg.HTTPAddr) {
		files = identity.Files{} // there it is served without TLS
	}
	return identity.Ready(ctx, cfg.HTTPAddr, files)
}
