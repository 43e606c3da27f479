package command

import (
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/services/cli/internal/envoybin"
)

// commit is set where an image is built, from sources without their history.
var commit string

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "The versions of this program and of the Envoy that it is tested with", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"marchproxy": "unknown", "envoy": envoybin.Version}
			if b, ok := debug.ReadBuildInfo(); ok {
				v["marchproxy"], v["go"] = b.Main.Version, b.GoVersion
				for _, s := range b.Settings {
					if s.Key == "vcs.revision" {
						v["commit"] = s.Value
					}
				}
			}
			if commit != "" {
				v["commit"] = commit
			}
			return c.print(v, func(w io.Writer) {
				for _, k := range []string{"marchproxy", "commit", "envoy", "go"} {
					if v[k] != "" {
						row(w, k, v[k])
					}
				}
			})
		},
	}
}
