package command

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/services/cli/internal/pki"
)

func (c *cli) pkiCommand() *cobra.Command {
	dir := ""
	cmd := &cobra.Command{
		Use: "pki", Short: "A private authority: certificates and NATS users for the parts",
		Long: "An authority in a directory, which holds its key: keep it off the machines that serve, and back " +
			"it up. Each part\n" +
			"that is issued gets a directory below issued/ with everything that its machine needs. Nothing is asked over a\n" +
			"network.",
	}
	cmd.PersistentFlags().StringVar(&dir, "dir", "pki", "the authority's directory")
	var i pki.Issued
	issue := &cobra.Command{
		Use: "issue ROLE NAME", Short: "Make a part's certificate and its NATS user, or its certificate anew",
		Args: cobra.ExactArgs(2),
		Long: "Roles: " + strings.Join(pki.Roles, ", ") + ". NAME is what the part is called: XDS_ID of an xds, AGENT_ID " +
			"of an agent.\n" +
			"A nats and a postgres are servers; a reader is a consumer of your own, whose durable consumer has\n" +
			"its name; an operator is a person with this command line.",
		Example: "  marchproxy pki issue xds xds-1 --host xds.internal --host 10.0.0.7\n" +
			"  marchproxy pki issue agent edge-1 --gateway default",
		ValidArgsFunction: cobra.FixedCompletions(pki.Roles, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := pki.Open(dir)
			if err != nil {
				return err
			}
			i.Role, i.Name = args[0], args[1]
			home, err := p.Issue(i)
			if err != nil {
				return err
			}
			if home, err = filepath.Abs(home); err != nil {
				return err
			}
			settings := pki.Settings(i, home)
			if c.people() {
				fmt.Fprintf(c.err, "made %s; what to set where it is copied to:\n", home)
			}
			return c.print(map[string]string{"directory": home, "settings": settings}, func(w io.Writer) {
				fmt.Fprint(w, settings)
			})
		},
	}
	issue.Flags().StringArrayVar(&i.Hosts, "host", nil, "a DNS name or an address at which the part is "+
		"reached; several times")
	issue.Flags().StringArrayVar(&i.Gateways, "gateway", nil, "the gateway of an agent's Envoy, any "+
		"without; several times")
	issue.Flags().StringVar(&i.User, "database-user", "marchproxy", "the user of PostgreSQL that an api is")
	issue.Flags().IntVar(&i.Days, "days", pki.DefaultDays, "for how long the certificate is good")
	finish := false
	rotate := &cobra.Command{
		Use: "rotate", Short: "Replace the authority: begin, and with --finish end it", Args: cobra.NoArgs,
		Long: "Without --finish a new authority is made, which signs from now on; both are trusted, and every ca.pem " +
			"below issued/\n" +
			"has both. Copy those to their machines; then renew, and copy the certificates; then rotate --finish, and copy\n" +
			"the ca.pem again. Nothing has to be restarted in between.",
		RunE: func(*cobra.Command, []string) error {
			p, err := pki.Open(dir)
			if err != nil {
				return err
			}
			if finish {
				return p.Finish()
			}
			return p.Rotate()
		},
	}
	rotate.Flags().BoolVar(&finish, "finish", false, "trust the new authority alone")
	cmd.AddCommand(
		&cobra.Command{
			Use: "init", Short: "Make an authority", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				_, err := pki.Init(dir)
				if err == nil {
					fmt.Fprintf(c.err, "made an authority in %s; each part's certificate comes of: marchproxy pki issue ROLE NAME\n",
						dir)
				}
				return err
			},
		}, issue,
		&cobra.Command{Use: "renew", Short: "Make every " +
			"certificate anew", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			p, err := pki.Open(dir)
			if err != nil {
				return err
			}
			dirs, err := p.Renew()
			told := c.print(map[string][]string{"directories": append([]string{}, dirs...)}, func(w io.Writer) {
				for _, d := range dirs {
					fmt.Fprintln(w, d)
				}
			})
			return errors.Join(err, told)
		}},
		&cobra.Command{
			Use: "revoke ROLE NAME", Short: "Take a part's certificate and its NATS user back", Args: cobra.ExactArgs(2),
			Long: "Its directory goes; crl.pem of the others, and users.conf of NATS, say so from then on: copy them " +
				"to their machines.",
			RunE: func(_ *cobra.Command, args []string) error {
				p, err := pki.Open(dir)
				if err != nil {
					return err
				}
				return p.Revoke(args[0], args[1])
			},
		}, rotate,
	)
	return cmd
}
