package command

import (
	"fmt"

	"github.com/spf13/cobra"

	modules "github.com/marchproxy/marchproxy/wasm-filters"
)

func (c *cli) filtersCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "filters", Short: "The proxies' filters"}
	dir := ""
	install := &cobra.Command{
		Use: "install", Short: "Write the filters' modules where Envoy and xds look for them", Args: cobra.NoArgs,
		Long: "Writes the modules that the directory lacks; others, of an Envoy that still runs, stay. The " +
			"directory is that of\n" +
			"MARCHPROXY_WASM_DIR of xds, on each machine with an Envoy; the image of the proxy has them.",
		RunE: func(*cobra.Command, []string) error {
			if err := modules.Install(dir); err != nil {
				return err
			}
			fmt.Fprintln(c.err, "the filters are in "+dir)
			return nil
		},
	}
	install.Flags().StringVar(&dir, "dir", modules.Dir, "where")
	cmd.AddCommand(install)
	return cmd
}
