// Command marchproxy is the command line: it runs the whole system on one machine (dev), and talks to a
// running one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/services/cli/internal/command"
	"github.com/marchproxy/marchproxy/services/cli/internal/dev"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{Use: "marchproxy", Short: "An L7 proxy platform for plain machines", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(dev.Command())
	command.Add(root)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "marchproxy:", err)
		stop()
		os.Exit(command.ExitCode(err))
	}
}
