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

const usage = `usage: marchproxy-xds          serve; the environment configures it
       marchproxy-xds health   is the one ready that runs with this environment? exit status 1 where it is not`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := server.Run
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "health":
		run = server.Health
	case len(args) > 0:
		fmt.Fprintln(os.Stderr, usage)
		stop()
		os.Exit(2)
	}
	if err := run(ctx, os.LookupEnv); err != nil {
		fmt.Fprintln(os.Stderr, "marchproxy-xds:", err)
		stop()
		os.Exit(1)
	}
}
