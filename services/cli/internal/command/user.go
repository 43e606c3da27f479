package command

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "user", Short: "Make, list, change and delete users, who sign in with a password (needs the role admin)",
		Aliases: []string{"users"},
	}
	cmd.AddCommand(c.userAddCommand(), c.userListCommand(), c.userPasswdCommand(), c.userRoleCommand(),
		c.userDisableCommand("disable", "Keep a user out; his sessions and tokens open nothing from then on", true),
		c.userDisableCommand("enable", "Let a disabled user in again; his sessions are over, his tokens open what they did",
			false), c.userDeleteCommand())
	return cmd
}

const passwordHelp = "The password is asked for at a terminal; elsewhere it is the first line of standard input. It is no " +
	"argument, which\nothers could read."

// newPassword reads a password that somebody chooses: twice without showing it at a terminal, otherwise one line.
func (c *cli) newPassword(of string) (string, error) {
	fd := os.Stdin.Fd()
	if !isatty.IsTerminal(fd) {
		line, err := bufio.NewReader(io.LimitReader(os.Stdin, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return "", errors.New("standard input is empty; its first line is to be the password")
		}
		return line, nil
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(c.err, prompt)
		raw, err := term.ReadPassword(int(fd))
		fmt.Fprintln(c.err)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return string(raw), nil
	}
	first, err := ask("password for " + of + ": ")
	if err != nil {
		return "", err
	}
	second, err := ask("the same again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the two are not the same; nothing has been changed")
	}
	return first, nil
}

// boundFlags are the flags by which somebody is bound.
func boundFlags(cmd *cobra.Command, who string, bounds *api.TokenBounds) {
	f := cmd.Flags()
	f.StringSliceVar(&bounds.Owners, "owner", nil, who+" writes only what these owners have; team-a takes in team-a-web")
	f.StringSliceVar(&bounds.Gateways, "gateway", nil, who+" writes only what is on these gateways")
	f.StringSliceVar(&bounds.Kinds, "kind", nil, who+" writes only these kinds")
	f.StringSliceVar(&bounds.Hosts, "host", nil, who+" writes only for these hosts and those below them")
}

// kindNames has kinds be called as the API calls them.
func kindNames(bounds *api.TokenBounds) {
	for i, k := range bounds.Kinds {
		if kind, err := kindOf(k); err == nil {
			bounds.Kinds[i] = kind.Name
		}
	}
}

func roleFlag(cmd *cobra.Command, role *string) {
	cmd.Flags().StringVar(role, "role", "", "viewer reads, editor writes routes and services, operator all of the "+
		"configuration, admin makes tokens and users as well")
	// the flag exists
	_ = cmd.MarkFlagRequired("role")
	// likewise
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp))
}

func (c *cli) userAddCommand() *cobra.Command {
	var role string
	var bounds api.TokenBounds
	cmd := &cobra.Command{
		Use: "add NAME --role " + strings.Join(roles, "|"), Short: "Make a user", Args: cobra.ExactArgs(1),
		Long: "A user signs in at the web UI with a password. Roles and bounds are those of tokens.\n\n" + passwordHelp,
		Example: "  marchproxy user add alice --role admin\n" +
			"  marchproxy user add bob --role editor --owner team-a < bob.password",
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			password, err := c.newPassword(args[0])
			if err != nil {
				return err
			}
			ask := api.User{Name: args[0], Role: role, Password: password}
			kindNames(&bounds)
			if len(boundsOf(&bounds)) > 0 {
				ask.Bounds = &bounds
			}
			var u api.User
			if _, err := a.Do(ctx, client.Request{Method: http.MethodPost, Path: "/v1/users", Body: ask}, &u); err != nil {
				return err
			}
			return c.print(u, func(w io.Writer) { row(w, "made user "+u.Name+" with the role "+u.Role) })
		}),
	}
	roleFlag(cmd, &role)
	boundFlags(cmd, "he", &bounds)
	return cmd
}

func (c *cli) userListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "The users", Args: cobra.NoArgs,
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			var l api.UserList
			if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/users"}, &l); err != nil {
				return err
			}
			return c.print(l, func(w io.Writer) {
				row(w, "NAME", "ROLE", "STATE", "SIGNED IN (UTC)", "SESSIONS", "TOKENS", "FROM", "BOUND TO")
				for _, u := range l.Items {
					state := "enabled"
					if u.Disabled {
						state = "disabled"
					}
					row(w, u.Name, cmp.Or(u.Role, "none"), state, cmp.Or(date(u.SignedInAt), "never"), fmt.Sprint(u.Sessions),
						fmt.Sprint(u.Tokens), cmp.Or(u.Issuer, "password"), cmp.Or(strings.Join(boundsOf(u.Bounds), "; "), "-"))
				}
			})
		}),
	}
}

// changeUser changes a user, and says so in a line.
func (c *cli) changeUser(ctx context.Context, a *client.Client, name string, patch api.UserPatch, said string) error {
	var u api.User
	_, err := a.Do(ctx, client.Request{Method: http.MethodPatch, Path: "/v1/users/" + url.PathEscape(name), Body: patch}, &u)
	if err != nil {
		return err
	}
	return c.print(u, func(w io.Writer) { row(w, said) })
}

func (c *cli) userPasswdCommand() *cobra.Command {
	return &cobra.Command{
		Use: "passwd NAME", Short: "Give a user another password; all his sessions end", Args: cobra.ExactArgs(1),
		Long:    "Give a user another password. All his sessions end, his own tokens stay.\n\n" + passwordHelp,
		Example: "  marchproxy user passwd alice",
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			password, err := c.newPassword(args[0])
			if err != nil {
				return err
			}
			return c.changeUser(ctx, a, args[0], api.UserPatch{Password: &password}, "user "+args[0]+" has another password")
		}),
	}
}

func (c *cli) userRoleCommand() *cobra.Command {
	var role string
	var bounds api.TokenBounds
	cmd := &cobra.Command{
		Use: "role NAME --role " + strings.Join(roles, "|"), Short: "Give a user another role and other bounds, at once",
		Args:    cobra.ExactArgs(1),
		Long:    "Give a user another role and other bounds. Without --owner, --gateway, --kind and --host there are none.",
		Example: "  marchproxy user role bob --role operator --host b.example.com",
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			kindNames(&bounds)
			return c.changeUser(ctx, a, args[0], api.UserPatch{Role: &role, Bounds: &bounds}, "user "+args[0]+" has the role "+
				role)
		}),
	}
	roleFlag(cmd, &role)
	boundFlags(cmd, "he", &bounds)
	return cmd
}

func (c *cli) userDisableCommand(use, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			return c.changeUser(ctx, a, args[0], api.UserPatch{Disabled: &disabled}, use+"d user "+args[0])
		}),
	}
}

func (c *cli) userDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a user with all his sessions and tokens", Args: cobra.ExactArgs(1),
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			var u api.User
			_, err := a.Do(ctx, client.Request{Method: http.MethodDelete, Path: "/v1/users/" + url.PathEscape(args[0])}, &u)
			if gone(err) {
				return fmt.Errorf("there is no user %q; marchproxy user list shows them", args[0])
			}
			if err != nil {
				return err
			}
			return c.print(u, func(w io.Writer) { row(w, "deleted user "+u.Name) })
		}),
	}
}
