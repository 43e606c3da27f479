package command

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

// report is what status shows.
type report struct {
	api.Status
	Proxies []api.Proxy `json:"proxies"`
}

func (c *cli) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "What is stored, published and live, on which Envoys, what they refused and what is wrong; exit code 3 for those", Args: cobra.NoArgs,
		Long: "Exit code 3 also where a service's DNS name has no address. One that does not resolve any more keeps its last\n" +
			"addresses; that is shown, and is no error.",
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			if !watch {
				r, err := look(ctx, a)
				if err != nil {
					return err
				}
				if err := c.print(r, func(w io.Writer) { r.table(w) }); err != nil {
					return err
				}
				if i := slices.IndexFunc(r.Troubles, func(t api.Trouble) bool { return t.Part == "stream" || t.Part == "database" }); i >= 0 {
					return &codeError{exitNotLive, r.Troubles[i].Part + ": " + r.Troubles[i].Reason}
				}
				if len(r.Rejected) > 0 {
					return &codeError{exitNotLive, plural(len(r.Rejected), "resource") + " refused by an Envoy"}
				}
				return r.unaddressed()
			}
			clear := c.people() && terminal(c.out)
			return a.Events(ctx, "", func(client.Event) error {
				r, err := look(ctx, a)
				if err != nil {
					return err
				}
				if clear {
					fmt.Fprint(c.out, "\x1b[H\x1b[2J")
				}
				return c.print(r, func(w io.Writer) {
					r.table(w)
					if !clear {
						row(w)
					}
				})
			})
		}),
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again whenever it changes")
	return cmd
}

func look(ctx context.Context, a *client.Client) (report, error) {
	var r report
	var p api.ProxyList
	if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/status"}, &r.Status); err != nil {
		return r, err
	}
	_, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/proxies"}, &p)
	r.Proxies = p.Items
	return r, err
}

func (r report) table(w io.Writer) {
	row(w, "stored", fmt.Sprintf("revision %d", r.Revision))
	row(w, "published", fmt.Sprintf("revision %d%s", r.PublishedRevision, behind(r.Revision, r.PublishedRevision)))
	for _, t := range r.Troubles {
		row(w, "TROUBLE", fmt.Sprintf("%s: %s%s", t.Part, t.Reason, since(t.Since)))
	}
	for _, p := range r.Progress {
		row(w, "BUSY", p.Who+": "+done(p)+since(p.Since))
	}
	if r.Status.Proxies > 0 {
		row(w, "live", fmt.Sprintf("revision %d on %s%s", r.LiveRevision, proxies(int(r.Status.Proxies)), behind(r.Revision, r.LiveRevision)))
	} else {
		row(w, "live", "no Envoy is connected")
	}
	if len(r.Xds) == 0 {
		row(w, "xds", "no xDS server has reported in the last 15 seconds")
	}
	for _, x := range r.Xds {
		row(w, "xds", fmt.Sprintf("%s serves revision %d to %s%s", x.ID, x.Revision, proxies(int(x.Proxies)), behind(r.Revision, x.Revision)))
	}
	if len(r.Proxies) > 0 {
		row(w)
		row(w, "PROXY", "GATEWAY", "APPLIED", "ADDRESS", "ENVOY", "SINCE")
		for _, x := range r.Proxies {
			at := date(x.ConnectedAt)
			if !x.Connected {
				at = "GONE since " + date(x.LastSeenAt)
			}
			row(w, x.ID, x.Gateway, x.AppliedRevision, x.Address, or(x.Version, "-"), at)
		}
	}
	if len(r.Warnings) > 0 {
		row(w)
	}
	for _, x := range r.Warnings {
		warningRow(w, x)
	}
	for _, x := range r.Rejected {
		of := x.Resource
		if x.Kind != "" {
			of = x.Kind + "/" + x.Name
		}
		fmt.Fprintf(w, "\nrefused: %s on gateway %s, which serves its last good version: %s\n", of, x.Gateway, x.Reason)
	}
	r.names(w)
}

// done is what a part does, and how far it is.
func done(p api.Progress) string {
	if p.Total == 0 {
		return p.What
	}
	return fmt.Sprintf("%s, %d of %d", p.What, p.Done, p.Total)
}

func since(at string) string {
	if at == "" {
		return ""
	}
	return " (since " + date(at) + ")"
}

func behind(head, at int64) string {
	if at >= head {
		return ""
	}
	return fmt.Sprintf(" (%d behind)", head-at)
}
