package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Make, list and delete tokens (needs the role admin), and print your own",
		Aliases: []string{"tokens"},
	}
	cmd.AddCommand(c.tokenCreateCommand(), c.tokenListCommand(), c.tokenDeleteCommand(), c.tokenPrintCommand())
	return cmd
}

var roles = []string{"viewer", "editor", "operator", "admin"}

func (c *cli) tokenCreateCommand() *cobra.Command {
	var role, expires string
	var bounds api.TokenBounds
	cmd := &cobra.Command{
		Use: "create NAME --role " + strings.Join(roles, "|"), Short: "Make a token; its secret is printed this once",
		Args: cobra.ExactArgs(1),
		Long: "A viewer reads, an editor writes routes and services as well, an operator the rest of the " +
			"configuration, and an\n" +
			"admin makes tokens. --owner, --gateway, --kind and --host bind the token: it writes only what is " +
			"within all that\n" +
			"are given, before the write and after it. Reads are not bound.",
		Example: "  (umask 077; marchproxy token create ci --role editor --expires 90d > ci.token)\n" +
			"  MARCHPROXY_TOKEN_FILE=ci.token marchproxy apply -f routes/\n" +
			"  marchproxy token create team-a --role editor --owner team-a --host a.example.com",
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			at, err := moment(expires, time.Now())
			if err != nil {
				return fmt.Errorf("--expires: %w", err)
			}
			kindNames(&bounds)
			ask := api.Token{Name: args[0], Role: role, ExpiresAt: at}
			if len(boundsOf(&bounds)) > 0 {
				ask.Bounds = &bounds
			}
			var t api.Token
			if _, err := a.Do(ctx, client.Request{Method: http.MethodPost, Path: "/v1/tokens", Body: ask}, &t); err != nil {
				return err
			}
			if c.people() {
				what := "with the role " + t.Role
				if t.ExpiresAt != "" {
					what += ", until " + date(t.ExpiresAt) + " UTC"
				}
				if b := boundsOf(t.Bounds); len(b) > 0 {
					what += ", bound to " + strings.Join(b, " and ")
				}
				fmt.Fprintf(c.err, "token %q %s; it is shown this once and stored only as a hash:\n", t.Name, what)
			}
			return c.print(t, func(w io.Writer) { row(w, t.Token) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&expires, "expires", "", "when it opens nothing any more: in 90d or 12h, or at a time such as "+
		"2027-01-31T00:00:00Z; never where absent")
	roleFlag(cmd, &role)
	boundFlags(cmd, "it", &bounds)
	return cmd
}

// moment reads when a token ends: a time, or how long from now. "" is never.
func moment(s string, now time.Time) (string, error) {
	if s == "" {
		return "", nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC().Format(time.RFC3339), nil
	}
	after, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		after = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || after <= 0 || after > 100*365*24*time.Hour {
		return "", fmt.Errorf("%q is neither how long, such as 90d or 12h, nor a time such as %s", s,
			now.AddDate(0, 3, 0).UTC().Format(time.RFC3339))
	}
	return now.Add(after).UTC().Format(time.RFC3339), nil
}

// boundsOf puts each sort of bounds into words.
func boundsOf(b *api.TokenBounds) (out []string) {
	if b == nil {
		return nil
	}
	for _, x := range []struct {
		name string
		list []string
	}{{"owner", b.Owners}, {"gateway", b.Gateways}, {"kind", b.Kinds}, {"host", b.Hosts}} {
		if len(x.list) > 0 {
			out = append(out, x.name+" "+strings.Join(x.list, ", "))
		}
	}
	return out
}

func (c *cli) tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "The tokens, without their secrets", Args: cobra.NoArgs,
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			var l api.TokenList
			if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/tokens"}, &l); err != nil {
				return err
			}
			return c.print(l, func(w io.Writer) {
				row(w, "NAME", "ROLE", "CREATED (UTC)", "LAST USED (UTC)", "ENDS (UTC)", "BOUND TO")
				for _, t := range l.Items {
					ends := cmp.Or(date(t.ExpiresAt), "never")
					if at, err := time.Parse(time.RFC3339, t.ExpiresAt); err == nil && !at.After(time.Now()) {
						ends += ", over"
					}
					row(w, t.Name, t.Role, date(t.CreatedAt), cmp.Or(date(t.LastUsedAt), "never"), ends,
						cmp.Or(strings.Join(boundsOf(t.Bounds), "; "), "-"))
				}
			})
		}),
	}
}

func (c *cli) tokenDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a token; it opens nothing from then on", Args: cobra.ExactArgs(1),
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			if resource.CheckName(args[0]) != "" { // it may be the token itself, which is neither sent on nor repeated
				return errors.New("a token is deleted by its name, as marchproxy token list shows it, and not by its secret")
			}
			var t api.Token
			_, err := a.Do(ctx, client.Request{Method: http.MethodDelete, Path: "/v1/tokens/" + url.PathEscape(args[0])}, &t)
			if gone(err) {
				return fmt.Errorf("there is no token %q; marchproxy token list shows them", args[0])
			}
			if err != nil {
				return err
			}
			return c.print(t, func(w io.Writer) { row(w, "deleted token "+t.Name) })
		}),
	}
}

func (c *cli) tokenPrintCommand() *cobra.Command {
	return &cobra.Command{
		Use: "print", Short: "Print the token that the other commands use, for curl", Args: cobra.NoArgs,
		Long: "Print the token that the other commands use: that of --token-file or the environment, or that of the " +
			"marchproxy dev\n" +
			"which this user runs.",
		Example: `  curl -H "Authorization: Bearer $(marchproxy token print)" localhost:8000/v1/routes`,
		RunE: func(*cobra.Command, []string) error {
			a, err := c.api()
			if err != nil {
				return err
			}
			if a.Token == "" {
				return fmt.Errorf("no token is named, and no marchproxy dev of this user serves %s; --token-file or "+
					"MARCHPROXY_TOKEN_FILE names a file with one", a.URL)
			}
			return c.print(struct {
				Token string `json:"token"`
			}{a.Token}, func(w io.Writer) { row(w, a.Token) })
		},
	}
}
