// Command marchproxy is the command line: it runs the whole system on one machine (dev), and talks to a
// running one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/marchproxy/marchproxy/services/cli/internal/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second Ctrl-C does not wait
	}()
	root := command.Root()
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "marchproxy:", err)
		stop()
		os.Exit(command.ExitCode(err))
	}
}
