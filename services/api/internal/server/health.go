package server

import (
	"context"
	"fmt"

	"github.com/marchproxy/marchproxy/pkg/identity"
)

// Health asks the api that runs with this environment whether it is ready; an error says why not.
func Health(ctx context.Context, lookup func(string) (string, bool)) error {
	cfg, err := readConfig(lookup)
	if err != nil {
		return err
	}
	return identity.Ready(ctx, cfg.Addr, cfg.Identity.Files)
}

// Migrate brings the database to this version, under a lock, and ends. The api does the same at its start; where this
// went before, several that start at once do not wait for each other.
func Migrate(ctx context.Context, lookup func(string) (string, bool)) error {
	st, err := openStore(ctx, lookup)
	if err != nil {
		return err
	}
	st.Close()
	fmt.Println("The database is of this version.")
	return nil
}
