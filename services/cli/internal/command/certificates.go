package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) certificatesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "certificates", Short: "Certificates: when they end, and how far their issuers are; order one now",
		Args: cobra.NoArgs,
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			list := []api.Object{}
			err := client.Pages(ctx, a, "/v1/certificates", url.Values{}, func(items []api.Object, _ int64) (bool, error) {
				list = append(list, items...)
				return true, nil
			})
			if err != nil {
				return err
			}
			return c.print(list, func(w io.Writer) { certificateTable(w, list) })
		}),
	}
	cmd.AddCommand(c.renewCommand())
	return cmd
}

func (c *cli) renewCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "renew NAME", Short: "Order a certificate from its issuer now, and wait until it is there; exit code 3 where it is not",
		Long: "Whether its renewal is due, or the pause after a failure over. What the issuer's order_limit and the authority\n" +
			"allow holds all the same.",
		Example: "  marchproxy certificates renew shop",
		Args:    cobra.ExactArgs(1),
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			k, _ := resource.KindByName(resource.KindCertificate)
			path := "/v1/certificates/" + url.PathEscape(args[0])
			var was, now api.Object
			if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: path}, &was); err != nil {
				return notFound(err, k, args[0])
			}
			if _, err := a.Do(ctx, client.Request{Method: http.MethodPost, Path: path + "/renew"}, &now); err != nil {
				return notFound(err, k, args[0])
			}
			before, said := issuanceOf(was), ""
			for deadline := time.Now().Add(timeout); ; {
				x := issuanceOf(now)
				if line := strings.TrimSuffix(x.Step+": "+x.Note, ": "); line != said && c.progress().on() {
					fmt.Fprintln(c.err, line)
					said = line
				}
				switch {
				case x.IssuedAt != before.IssuedAt:
					return c.print(now, func(w io.Writer) { certificateTable(w, []api.Object{now}) })
				case x.Failures > before.Failures:
					return &codeError{exitNotLive, fmt.Sprintf("certificate %q could not be issued (%s): %s", args[0], x.Problem, x.Reason)}
				case time.Now().After(deadline):
					return &codeError{exitNotLive, fmt.Sprintf("certificate %q is not issued after %s (%s); it goes on, "+
						"marchproxy certificates says how far it is", args[0], timeout, or(x.Note, x.Step))}
				}
				select {
				case <-time.After(500 * time.Millisecond):
				case <-ctx.Done():
					return ctx.Err()
				}
				if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: path}, &now); err != nil {
					return err
				}
			}
		}),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait")
	return cmd
}

// issuanceOf is how far a certificate is; the zero value where it has no issuer.
func issuanceOf(o api.Object) (x api.CertificateIssuance) {
	if o.Status != nil && o.Status.Issuance != nil {
		x = *o.Status.Issuance
	}
	return x
}

func certificateTable(w io.Writer, list []api.Object) {
	if len(list) == 0 {
		row(w, "none")
		return
	}
	row(w, "CERTIFICATE", "NAMES", "ENDS", "ISSUER", "STEP", "RENEWED OR TRIED AGAIN")
	for _, o := range list {
		var spec struct {
			Issuer string   `json:"issuer"`
			Names  []string `json:"names"`
			Facts  struct {
				NotAfter    string   `json:"not_after"`
				Names       []string `json:"dns_names"`
				Placeholder bool     `json:"placeholder"`
			} `json:"facts"`
		}
		if err := json.Unmarshal(o.Spec, &spec); err != nil {
			row(w, o.Name, "cannot be read: "+err.Error())
			continue
		}
		x := issuanceOf(o)
		names, ends, next := spec.Facts.Names, date(spec.Facts.NotAfter), x.RenewAt
		if spec.Facts.Placeholder {
			names, ends = spec.Names, "not issued yet"
		}
		if x.Problem != "" {
			next = x.NextAt
		}
		if next != "" {
			next = date(next)
		}
		row(w, o.Name, shortList(names), ends, or(spec.Issuer, "-"), or(x.Step, "-"), or(next, "-"))
	}
	for _, o := range list {
		switch x := issuanceOf(o); {
		case x.Problem != "":
			row(w, fmt.Sprintf("%s: %s: %s", o.Name, x.Problem, x.Reason))
		case x.Note != "":
			row(w, o.Name+": "+x.Note)
		}
	}
}

// shortList is the first names of a list, and how many others there are.
func shortList(names []string) string {
	if len(names) > 2 {
		return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
	}
	return or(strings.Join(names, ", "), "-")
}
