package command

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) revisionsCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "revisions [N]", Short: "The history: who changed what, when and why", Args: cobra.MaximumNArgs(1),
		Aliases: []string{"history", "revision"},
		Example: "  marchproxy revisions\n  marchproxy revisions 42\n  marchproxy revisions diff 42 --against 40",
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			if len(args) == 1 {
				n, err := revision(args[0])
				if err != nil {
					return err
				}
				var r api.Revision
				if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/revisions/" + n}, &r); err != nil {
					return noRevision(err, n)
				}
				return c.print(r, func(w io.Writer) {
					revisionTable(w, []api.Revision{r})
					row(w)
					for _, x := range r.Changes {
						row(w, fmt.Sprintf("%s %s/%s", x.Action, x.Kind, x.Name))
					}
				})
			}
			rows := []api.Revision{}
			err := client.Pages(ctx, a, "/v1/revisions", url.Values{
				"limit": {strconv.Itoa(page(limit))},
			}, func(items []api.Revision, _ int64) (bool, error) {
				rows = append(rows, items...)
				return limit == 0 || len(rows) < limit, nil
			})
			if err != nil {
				return err
			}
			if limit > 0 {
				rows = rows[:min(len(rows), limit)]
			}
			return c.print(api.RevisionList{Items: rows}, func(w io.Writer) { revisionTable(w, rows) })
		}),
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many, the newest first; 0 for all")
	cmd.AddCommand(c.revisionsDiffCommand())
	return cmd
}

// page is the size of pages for a limit; 0 is no limit.
func page(limit int) int {
	if limit <= 0 || limit > 1000 {
		return 1000
	}
	return limit
}

func revisionTable(w io.Writer, rows []api.Revision) {
	row(w, "REVISION", "AT (UTC)", "BY", "CHANGES", "MESSAGE")
	for _, r := range rows {
		row(w, r.Revision, date(r.At), r.Actor, r.ChangeCount, short(r.Message, 60))
	}
}

func (c *cli) revisionsDiffCommand() *cobra.Command {
	var against int64
	cmd := &cobra.Command{
		Use: "diff N", Short: "What differs between two revisions; exit code 2 where that is something",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.api()
			if err != nil {
				return err
			}
			n, err := revision(args[0])
			if err != nil {
				return err
			}
			q := url.Values{}
			if cmd.Flags().Changed("against") {
				q.Set("against", strconv.FormatInt(against, 10))
			}
			var d api.Diff
			if _, err := a.Do(cmd.Context(), client.Request{
				Method: http.MethodGet, Path: "/v1/revisions/" + n + "/diff",
				Query: q,
			}, &d); err != nil {
				return noRevision(err, n)
			}
			return c.differences(d, pairsOf(d.Changes), fmt.Sprintf("revision %d", d.Against),
				fmt.Sprintf("revision %d", d.Revision))
		},
	}
	cmd.Flags().Int64Var(&against, "against", 0, "the other revision, N-1 where it is not given")
	return cmd
}

func revision(s string) (string, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err != nil || n < 0 {
		return "", fmt.Errorf("%q is no revision; it is a whole number, as marchproxy revisions shows it", s)
	}
	return s, nil
}

func noRevision(err error, n string) error {
	if gone(err) {
		return fmt.Errorf("there is no revision %s; marchproxy revisions lists them", n)
	}
	return err
}
