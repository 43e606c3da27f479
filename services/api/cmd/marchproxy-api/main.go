// Command marchproxy-api owns the configuration: it validates, stores and publishes it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/marchproxy/marchproxy/services/api/internal/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := server.Run(ctx, os.LookupEnv); err != nil {
		fmt.Fprintln(os.Stderr, "marchproxy-api:", err)
		stop()
		os.Exit(1)
	}
}
