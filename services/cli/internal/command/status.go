package command

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

// report is what status shows.
type report struct {
	api.Status
	// Proxies are those that lag, those that are gone, and others, a few of each: GET /v1/proxies has all of them.
	Proxies []api.Proxy `json:"proxies"`
	// Known counts all of them.
	Known int32 `json:"known_proxies"`
}

func (c *cli) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "What is stored, published and live, on which Envoys, what they refused and what is wrong; " +
			"exit code 3 for those", Args: cobra.NoArgs,
		Long: "Exit code 3 also where a service's DNS name has no address. One that does not resolve any more " +
			"keeps its last\n" +
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
				if i := slices.IndexFunc(r.Troubles, func(t api.Trouble) bool {
					return t.Part == "stream" ||
						t.Part == "database"
				}); i >= 0 {
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
	r := report{Proxies: []api.Proxy{}}
	if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/status"}, &r.Status); err != nil {
		return r, err
	}
	some := func(state string) (p api.ProxyList, err error) {
		q := url.Values{"limit": {strconv.Itoa(someProxies)}}
		if state != "" {
			q.Set("state", state)
		}
		_, err = a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/proxies", Query: q}, &p)
		return p, err
	}
	others, err := some("")
	if err != nil {
		return r, err
	}
	r.Known = others.Total
	list := others.Items
	if others.NextCursor != "" { // the worst are not among them, perhaps
		for _, state := range []string{"absent", "lagging"} {
			p, err := some(state)
			if err != nil {
				return r, err
			}
			list = append(p.Items, list...)
		}
	}
	seen := map[string]bool{}
	for _, x := range list {
		if key := x.ID + "\x00" + x.Address + "\x00" + x.Xds; !seen[key] {
			seen[key] = true
			r.Proxies = append(r.Proxies, x)
		}
	}
	slices.SortStableFunc(r.Proxies, func(x, y api.Proxy) int { return rank(x) - rank(y) })
	return r, nil
}

// someProxies is how many Envoys of each sort are shown.
const someProxies = 20

// rank puts Envoys that lag before those that are gone, and these before all others.
func rank(p api.Proxy) int {
	switch {
	case p.LaggingSince != "":
		return 0
	case !p.Connected:
		return 1
	}
	return 2
}

func (r report) table(w io.Writer) {
	row(w, "stored", fmt.Sprintf("revision %d", r.Revision))
	if r.OldestRevision > 1 {
		row(w, "history", fmt.Sprintf("since revision %d; what was before is not kept any more", r.OldestRevision))
	}
	row(w, "published", fmt.Sprintf("revision %d%s", r.PublishedRevision, behind(r.Revision, r.PublishedRevision)))
	for _, t := range r.Troubles {
		row(w, "TROUBLE", fmt.Sprintf("%s: %s%s", t.Part, t.Reason, since(t.Since)))
	}
	for _, p := range r.Progress {
		row(w, "BUSY", p.Who+": "+p.String()+since(p.Since))
	}
	if r.Status.Proxies > 0 {
		row(w, "live", fmt.Sprintf("revision %d on %s%s", r.LiveRevision, proxies(int(r.Status.Proxies)),
			behind(r.Revision, r.LiveRevision)))
	} else {
		row(w, "live", "no Envoy is connected")
	}
	for _, x := range r.Drained {
		text := locality.Place{Cloud: x.Cloud, Region: x.Region, Zone: x.Zone}.String() + since(x.Since)
		if x.Reason != "" {
			text += ": " + x.Reason
		}
		row(w, "DRAINED", text)
	}
	if len(r.Xds) == 0 {
		row(w, "xds", "no xDS server has reported in the last 15 seconds")
	}
	for _, x := range r.Xds {
		row(w, "xds", fmt.Sprintf("%s serves revision %d to %s%s", x.ID, x.Revision, proxies(int(x.Proxies)),
			behind(r.Revision, x.Revision)))
	}
	if r.LaggingProxies > 0 {
		row(w, "LAGGING", proxies(int(r.LaggingProxies)))
		for _, x := range r.Lagging {
			row(w, "", lags(x))
		}
	}
	if len(r.Proxies) > 0 {
		row(w)
		proxyTable(w, r.Proxies)
		if more := int(r.Known) - len(r.Proxies); more > 0 {
			row(w, fmt.Sprintf("and %d more; marchproxy proxies lists all", more))
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
