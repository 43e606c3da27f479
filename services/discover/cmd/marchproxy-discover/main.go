// Command marchproxy-discover finds the services of a site, in a Docker engine, Nomad, Consul or DNS, and has the api
// route to them. With the argument docker-filter it is what stands between a Docker engine and the program itself.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/marchproxy/marchproxy/services/discover/internal/server"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "marchproxy-discover:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case len(args) == 0:
		return server.Run(ctx, os.LookupEnv)
	case len(args) == 1 && args[0] == "docker-filter":
		return server.Filter(ctx, os.LookupEnv)
	}
	return fmt.Errorf("%q is not known; without arguments it discovers, and with docker-filter it passes on what that "+
		"needs of a Docker engine", args)
}
