package command

import (
	"context"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) auditCommand() *cobra.Command {
	var kind, object, actor string
	var limit int
	cmd := &cobra.Command{
		Use: "audit", Short: "Who changed which resource or token, the newest first", Args: cobra.NoArgs,
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			q := url.Values{"limit": {strconv.Itoa(page(limit))}}
			if k, err := kindOf(kind); err == nil && kind != "" {
				kind = k.Name
			}
			for name, value := range map[string]string{"kind": kind, "object": object, "actor": actor} {
				if value != "" {
					q.Set(name, value)
				}
			}
			rows := []api.AuditEntry{}
			err := client.Pages(ctx, a, "/v1/audit", q, func(items []api.AuditEntry, _ int64) (bool, error) {
				rows = append(rows, items...)
				return limit == 0 || len(rows) < limit, nil
			})
			if err != nil {
				return err
			}
			if limit > 0 {
				rows = rows[:min(len(rows), limit)]
			}
			return c.print(api.AuditList{Items: rows}, func(w io.Writer) {
				row(w, "AT (UTC)", "BY", "DID", "WHAT", "REVISION", "MESSAGE")
				for _, r := range rows {
					n := "-"
					if r.Revision > 0 {
						n = strconv.FormatInt(r.Revision, 10)
					}
					row(w, date(r.At), r.Actor, r.Action, r.Kind+"/"+r.Name, n, short(r.Message, 50))
				}
			})
		}),
	}
	cmd.Flags().StringVar(&kind, "kind", "", "only this kind; Token for tokens")
	cmd.Flags().StringVar(&object, "name", "", "only the object of this name")
	cmd.Flags().StringVar(&actor, "actor", "", "only what this token did")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many; 0 for all")
	return cmd
}
