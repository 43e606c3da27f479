// Command marchproxy-api owns the configuration: it validates, stores and publishes it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/marchproxy/marchproxy/services/api/internal/server"
	"github.com/marchproxy/marchproxy/services/api/internal/together"
)

const usage = `usage: marchproxy-api             serve; the environment configures it
       marchproxy-api health      is the one ready that runs with this environment? exit status 1 where it is not
       marchproxy-api with-xds    serve, and run marchproxy-xds beside it where XDS_GRPC_PORT or XDS_HTTP_PORT is set
       marchproxy-api migrate     bring the database to this version, and end
       marchproxy-api new-epoch   after a restore of the database: begin a new life of it`

var commands = map[string]func(context.Context, func(string) (string, bool)) error{
	"health": server.Health, "migrate": server.Migrate, "new-epoch": server.NewEpoch, "with-xds": together.Run,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := server.Run
	if len(os.Args) > 1 {
		run = commands[os.Args[1]]
	}
	if len(os.Args) > 2 || run == nil {
		fmt.Fprintln(os.Stderr, usage)
		stop()
		os.Exit(2)
	}
	if err := run(ctx, os.LookupEnv); err != nil {
		fmt.Fprintln(os.Stderr, "marchproxy-api:", err)
		stop()
		os.Exit(1)
	}
}
