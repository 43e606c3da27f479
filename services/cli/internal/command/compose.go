package command

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/services/cli/internal/stack"
)

func (c *cli) composeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "compose", Short: "What docker compose wants to find: secrets, certificates, NATS users"}
	dir, renew := "", false
	var hosts []string
	begin := &cobra.Command{
		Use: "init", Short: "Make the secrets, the authority and each part's certificate, where they are missing",
		Args: cobra.NoArgs,
		Long: "Makes what is missing, makes certificates anew that end within 30 days, and gives each file to " +
			"the user of its\n" +
			"container, which takes root: docker compose run --rm init is this command in the image marchproxy/cli. What is\n" +
			"there stays. The directory has the authority's key, too, in pki/: back it up.",
		Example: "  docker compose run --rm init\n  docker compose run --rm init --host api.example.com --renew",
		RunE: func(*cobra.Command, []string) error {
			m, err := stack.Init(dir, hosts, renew, time.Now())
			if err != nil {
				return err
			}
			if !m.Owned {
				fmt.Fprintln(c.err, "warning: only root can give files to the users of the containers: run this as root, or by "+
					"docker compose run --rm init")
			}
			out := map[string][]string{
				"made":         append([]string{}, m.New...),
				"certificates": append([]string{}, m.Certificates...),
			}
			return c.print(out, func(w io.Writer) {
				for _, name := range m.New {
					fmt.Fprintln(w, "made", name)
				}
				for _, name := range m.Certificates {
					fmt.Fprintln(w, "made the certificate of", name)
				}
				if len(m.New)+len(m.Certificates) == 0 {
					fmt.Fprintln(w, "everything is there")
				}
			})
		},
	}
	begin.Flags().StringVar(&dir, "dir", "secrets", "where")
	begin.Flags().StringArrayVar(&hosts, "host", nil, "a name or an address by which other machines reach api and "+
		"xds; several times")
	begin.Flags().BoolVar(&renew, "renew", false, "issue every certificate anew")
	cmd.AddCommand(begin)
	return cmd
}
