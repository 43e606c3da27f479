// Command marchproxy-api owns the configuration: it validates, stores and publishes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/marchproxy/marchproxy/services/api/internal/backup"
	"github.com/marchproxy/marchproxy/services/api/internal/server"
	"github.com/marchproxy/marchproxy/services/api/internal/together"
)

const usage = `usage: marchproxy-api             serve; the environment configures it
       marchproxy-api health      is the one ready that runs with this environment? exit status 1 where it is not
       marchproxy-api with-xds    serve, and run marchproxy-xds beside it where XDS_GRPC_PORT or XDS_HTTP_PORT is set
       marchproxy-api migrate     bring the database to this version, and end
       marchproxy-api backup      all that the database has, in a file: backup [-json] FILE|-
       marchproxy-api restore     and back: restore [-replace] [-check] [-json] FILE|-
       marchproxy-api new-epoch   after the database was restored by other means: begin a new life of it
       marchproxy-api openapi     print the API's OpenAPI document`

type (
	lookup  = func(string) (string, bool)
	command = func(ctx context.Context, env lookup, args []string) error
)

var commands = map[string]command{
	"health": alone(server.Health), "migrate": alone(server.Migrate), "new-epoch": alone(server.NewEpoch),
	"openapi": alone(server.OpenAPI), "with-xds": alone(together.Run),
	"backup": backup.Write, "restore": backup.Restore,
}

// errUsage has the usage said.
var errUsage = errors.New("usage")

// alone is a command that has no arguments.
func alone(run func(context.Context, lookup) error) command {
	return func(ctx context.Context, env lookup, args []string) error {
		if len(args) > 0 {
			return errUsage
		}
		return run(ctx, env)
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run, args := alone(server.Run), os.Args[1:]
	if len(args) > 0 {
		run, args = commands[args[0]], args[1:]
	}
	err := errUsage
	if run != nil {
		err = run(ctx, os.LookupEnv, args)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, usage)
		stop()
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "marchproxy-api:", err)
		stop()
		os.Exit(1)
	}
}
