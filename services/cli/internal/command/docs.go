package command

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func docsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "docs", Short: "Write the command line's documentation to files"}
	cmd.AddCommand(&cobra.Command{
		Use: "man DIR", Short: "Write a manual page of each command into a folder", Args: cobra.ExactArgs(1),
		Example: "  marchproxy docs man /usr/local/share/man/man1 && man marchproxy-apply",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the day on which it was written says nothing
			head := &doc.GenManHeader{Title: "MARCHPROXY", Section: "1", Source: "MarchProxy", Manual: "MarchProxy"}
			if err := doc.GenManTree(root, head, args[0]); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			return nil
		},
	})
	return cmd
}
