package command

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) proxiesCommand() *cobra.Command {
	var gateway, state string
	cmd := &cobra.Command{
		Use: "proxies", Short: "The Envoys that are connected or were lately, what they serve and what they lack",
		Args: cobra.NoArgs,
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			q := url.Values{}
			for name, value := range map[string]string{"gateway": gateway, "state": state} {
				if value != "" {
					q.Set(name, value)
				}
			}
			list := []api.Proxy{}
			err := client.Pages(ctx, a, "/v1/proxies", q, func(items []api.Proxy, _ int64) (bool, error) {
				list = append(list, items...)
				return true, nil
			})
			if err != nil {
				return err
			}
			return c.print(list, func(w io.Writer) {
				if len(list) == 0 {
					row(w, "none")
					return
				}
				proxyTable(w, list)
			})
		}),
	}
	cmd.Flags().StringVar(&gateway, "gateway", "", "only Envoys of this gateway")
	cmd.Flags().StringVar(&state, "state", "", "only those that are connected, absent, lagging or surplus")
	return cmd
}

func proxyTable(w io.Writer, list []api.Proxy) {
	row(w, "PROXY", "GATEWAY", "APPLIED", "ADDRESS", "ENVOY", "SINCE")
	for _, x := range list {
		at := date(x.ConnectedAt)
		switch {
		case !x.Connected:
			at = "GONE since " + date(x.LastSeenAt)
		case x.LaggingSince != "":
			at += ", LAGS since " + date(x.LaggingSince) + ", lacks " + or(x.Lacks, "something")
		}
		row(w, x.ID, x.Gateway, x.AppliedRevision, x.Address, or(x.Version, "-"), at)
	}
}

// lags is what an Envoy lacks, in a sentence.
func lags(x api.LaggingProxy) string {
	s := fmt.Sprintf("Envoy %s (%s) of gateway %s serves revision %d since %s", x.ID, or(x.Address, "-"), x.Gateway,
		x.AppliedRevision, date(x.Since))
	switch {
	case x.Resource != "" && x.Sent:
		s += "; it has not answered " + x.Resource
	case x.Resource != "":
		s += "; it is to get " + x.Resource
	}
	return s
}
