package command

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) rollbackCommand() *cobra.Command {
	var w waiting
	var dry, revive bool
	var message string
	cmd := &cobra.Command{
		Use: "rollback N", Short: "Make the whole configuration what it was at revision N, as a new revision",
		Args: cobra.ExactArgs(1),
		Long: "Nothing of the history is rewritten: the rollback is a revision like others, and can itself " +
			"be rolled back.\n" +
			"--dry-run shows the differences that it would make. Credentials that were taken away since then (keys " +
			"of gateways,\n" +
			"keys and tokens of policies, certificates) come back only with --revive-credentials; without it they are named.",
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			n, err := revision(args[0])
			if err != nil {
				return err
			}
			q, err := w.query()
			if err != nil {
				return err
			}
			if dry {
				q.Set("dry_run", "true")
			}
			if revive {
				q.Set("revive_credentials", "true")
			}
			if message != "" {
				q.Set("message", message)
			}
			p := c.progress()
			p.say("rolling back to revision %s", n)
			var res api.ApplyResult
			r := client.Request{Method: http.MethodPost, Path: "/v1/revisions/" + n + "/rollback", Query: q, Once: !dry}
			if err := c.write(ctx, a, p, w, r, &res); err != nil {
				return noRevision(err, n)
			}
			if dry && c.people() {
				if err := c.unified(pairsOf(res.Changes), "live", "revision "+n); err != nil {
					return err
				}
			}
			return c.result(res)
		}),
	}
	w.flags(cmd.Flags())
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show what would change, but change nothing")
	cmd.Flags().BoolVar(&revive, "revive-credentials", false, "let credentials that were taken away since then come back")
	cmd.Flags().StringVarP(&message, "message", "m", "", "why, for the history")
	return cmd
}
