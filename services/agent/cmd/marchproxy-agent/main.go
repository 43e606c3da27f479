// Command marchproxy-agent runs on every node: it keeps the kernel's limits equal to the rate limit
// policies, and where XDS_SERVER is set it starts, watches and drains Envoy. It can be process 1 of a
// container.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/marchproxy/marchproxy/services/agent/internal/doctor"
	"github.com/marchproxy/marchproxy/services/agent/internal/initproc"
	"github.com/marchproxy/marchproxy/services/agent/internal/privilege"
	"github.com/marchproxy/marchproxy/services/agent/internal/server"
)

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "marchproxy-agent:", err)
	}
	os.Exit(status)
}

func run(args []string) (status int, err error) {
	if privilege.Execs(args) {
		return 1, privilege.Exec(args)
	}
	if os.Getpid() == 1 && len(args) == 0 {
		return initproc.Run(args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case len(args) == 0:
		err = server.Run(ctx, os.LookupEnv)
	case len(args) == 1 && args[0] == "health":
		err = server.Health(ctx, os.LookupEnv)
	case len(args) == 1 && args[0] == "doctor":
		return doctor.Run(ctx, os.LookupEnv, os.Stdout)
	case args[0] == "admin" && (len(args) == 2 || len(args) == 3):
		method, path := "GET", args[len(args)-1]
		if len(args) == 3 {
			method = args[1]
		}
		return server.Admin(ctx, os.LookupEnv, method, path, os.Stdout)
	default:
		err = fmt.Errorf("%q is not known; without arguments it runs the agent, health says whether a running one is ready, "+
			"doctor checks one, and admin [METHOD] PATH asks its Envoy's admin interface, such as: admin POST "+
			"/logging?level=debug", args)
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}
