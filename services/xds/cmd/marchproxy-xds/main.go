// Command marchproxy-xds serves Envoys: it replays the configuration from NATS, builds Envoy's
// resources and reports what the Envoys have applied.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/marchproxy/marchproxy/services/xds/internal/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := server.Run(ctx, os.LookupEnv); err != nil {
		fmt.Fprintln(os.Stderr, "marchproxy-xds:", err)
		stop()
		os.Exit(1)
	}
}
