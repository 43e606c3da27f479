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

const usage = `usage: marchproxy-api             serve; the environment configures it
       marchproxy-api new-epoch   after a restore of the database: begin a new life of it`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := server.Run
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "new-epoch":
		run = server.NewEpoch
	case len(args) > 0:
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
