// Package command is the command line: one file a command. Everything that talks to a running system does
// so over its HTTP API.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/dev"
)

// Exit codes.
const (
	exitError   = 1 // the command failed, or was refused
	exitDrift   = 2 // diff and doctor: there are differences
	exitNotLive = 3 // what was asked for was stored, and an Envoy has refused it or does not serve it
)

// codeError is an error with an exit code of its own.
type codeError struct {
	code int
	text string
}

func (e *codeError) Error() string { return e.text }

// ExitCode is the process's exit code for an error.
func ExitCode(err error) int {
	var e *codeError
	if errors.As(err, &e) {
		return e.code
	}
	return exitError
}

// defaultAPI is where `marchproxy dev` serves.
const defaultAPI = "http://127.0.0.1:8000"

// cli is what all commands share: the global flags and the terminal.
type cli struct {
	url, tokenFile, output string
	verbose                bool

	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
}

// Root is the whole command tree.
func Root() *cobra.Command {
	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.LookupEnv}
	root := &cobra.Command{
		Use: "marchproxy", Short: "An L7 proxy platform for plain machines", SilenceUsage: true, SilenceErrors: true,
		Long: "marchproxy runs the whole system on one machine (dev), and talks to a running one.\n\n" +
			"Exit codes: 0 done; 1 an error, said on standard error; 2 differences (diff, doctor), or an audit " +
			"that was changed;\n" +
			"3 stored, but an Envoy has refused it or does not serve it yet (--wait, status);\n" +
			"with status also: what is stored cannot be published, or nothing can be stored.",
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			c.in, c.out, c.err = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			if c.output != "" && !slices.Contains(outputs, c.output) {
				return fmt.Errorf("-o %s is not known; it is table, json or yaml", c.output)
			}
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&c.url, "api", "", "the api's address (MARCHPROXY_API, otherwise "+defaultAPI+")")
	f.StringVar(&c.tokenFile, "token-file", "", "file that holds the token (MARCHPROXY_TOKEN_FILE, or the token itself "+
		"in MARCHPROXY_TOKEN; otherwise that of marchproxy dev)")
	f.StringVarP(&c.output, "output", "o", "", "table for people, json or yaml for programs")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "say what is going on, also where standard error is no terminal")
	root.AddCommand(
		c.applyCommand(), c.diffCommand(), c.validateCommand(), c.exportCommand(), c.importCommand(),
		c.getCommand(), c.deleteCommand(), c.explainCommand(), c.statusCommand(), c.proxiesCommand(), c.healthCommand(),
		c.trafficCommand(), c.limitsCommand(),
		c.certificatesCommand(), c.eventsCommand(), c.logsCommand(),
		c.revisionsCommand(), c.rollbackCommand(), c.auditCommand(), c.tokenCommand(), c.userCommand(),
		c.backupCommand(), c.restoreCommand(), c.drainCommand(), c.undrainCommand(),
		c.doctorCommand(), c.pkiCommand(), c.composeCommand(), c.filtersCommand(), c.versionCommand(), dev.Command(),
		docsCommand(),
	)
	// the flag exists
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	return root
}

// api returns a client for the address and the token that flags and environment name.
func (c *cli) api() (*client.Client, error) {
	env := process.NewEnv(c.env)
	a := &client.Client{URL: c.url}
	if p := c.progress(); p.on() {
		a.Notify = func(reason string) { fmt.Fprintln(c.err, reason) }
	}
	if a.URL == "" {
		a.URL = env.String("MARCHPROXY_API", defaultAPI)
	}
	if c.tokenFile != "" { // the flag goes before the environment
		env = process.NewEnv(func(name string) (string, bool) { return c.tokenFile, name == "MARCHPROXY_TOKEN_FILE" })
	}
	if err := c.secure(a); err != nil {
		return nil, err
	}
	a.Token = env.Secret("MARCHPROXY_TOKEN")
	file := env.String("MARCHPROXY_TOKEN_FILE", "")
	if err := env.Err(); err != nil {
		return nil, err
	}
	if a.Token == "" {
		a.Token = dev.Token(a.URL)
	}
	c.warnOpen("the token", file)
	return a, nil
}

// secure has a client show the certificate that the environment names, and keeps a token from a way on which it can be
// read.
func (c *cli) secure(a *client.Client) error {
	s, id, err := c.identity()
	if err != nil {
		return err
	}
	if u, err := url.Parse(a.URL); err == nil && u.Scheme == "http" && !identity.Loopback(u.Hostname()) && !s.Plain {
		return fmt.Errorf("%s is another machine, and what is sent there may be read on the way: use https://, "+
			"or set ALLOW_PLAINTEXT=true", a.URL)
	}
	a.TLS(id.Client(""))
	return nil
}

// identity is what the environment says of it.
func (c *cli) identity() (identity.Settings, *identity.Identity, error) {
	env := process.NewEnv(c.env)
	s := identity.Read(env)
	if err := env.Err(); err != nil {
		return s, nil, err
	}
	id, err := identity.Open(s.Files)
	return s, id, err
}

// warnOpen warns of a file with secrets that others can read. One of mode 0440, as docker compose mounts it, was given to
// a group by whoever deploys: people write 0640.
func (c *cli) warnOpen(what, file string) {
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o077 != 0 && info.Mode().Perm() != 0o440 {
		fmt.Fprintf(c.err, "marchproxy: %s in %s can be read by other users of this machine; chmod 600 keeps it to "+
			"yourself\n", what, file)
	}
}

// use runs f with a client.
func (c *cli) use(
	f func(ctx context.Context, a *client.Client, args []string) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a, err := c.api()
		if err != nil {
			return err
		}
		return f(cmd.Context(), a, args)
	}
}
