package command

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make, list and delete tokens (needs the role admin)", Aliases: []string{"tokens"}}
	cmd.AddCommand(c.tokenCreateCommand(), c.tokenListCommand(), c.tokenDeleteCommand())
	return cmd
}

func (c *cli) tokenCreateCommand() *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use: "create NAME --role viewer|editor|admin", Short: "Make a token; its secret is printed this once", Args: cobra.ExactArgs(1),
		Example: "  (umask 077; marchproxy token create ci --role editor > ci.token)\n  MARCHPROXY_TOKEN_FILE=ci.token marchproxy apply -f routes/",
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			var t api.Token
			if _, err := a.Do(ctx, client.Request{Method: http.MethodPost, Path: "/v1/tokens", Body: api.Token{Name: args[0], Role: role}}, &t); err != nil {
				return err
			}
			if c.people() {
				fmt.Fprintf(c.err, "token %q with the role %s; it is shown this once and stored only as a hash:\n", t.Name, t.Role)
			}
			return c.print(t, func(w io.Writer) { row(w, t.Token) })
		}),
	}
	cmd.Flags().StringVar(&role, "role", "", "viewer reads, editor writes the configuration as well, admin makes tokens as well")
	_ = cmd.MarkFlagRequired("role")                                                                                                              // the flag exists
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "editor", "admin"}, cobra.ShellCompDirectiveNoFileComp)) // likewise
	return cmd
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
				row(w, "NAME", "ROLE", "CREATED (UTC)")
				for _, t := range l.Items {
					row(w, t.Name, t.Role, date(t.CreatedAt))
				}
			})
		}),
	}
}

func (c *cli) tokenDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a token; it opens nothing from then on", Args: cobra.ExactArgs(1),
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
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
