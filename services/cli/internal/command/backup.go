package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/services/cli/internal/dev"
)

// where is what both commands say of the database that they are about.
const where = "The database is the one that DATABASE_URL names, and SECRET_KEY is its apis', as for marchproxy-api, " +
	"which does the\n" +
	"work. Where DATABASE_URL is not set it is what marchproxy dev keeps, whether it runs or not. No program of " +
	"PostgreSQL's is\nneeded. In containers:\n"

func (c *cli) backupCommand() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use: "backup FILE|-", Short: "Write all that the database has to a file, as of one moment", Args: cobra.ExactArgs(1),
		Long: "Configuration, history, audit and tokens, as of one moment, while the system runs or not. What is sealed " +
			"stays sealed:\n" +
			"SECRET_KEY opens it, and is not in the file. The file is signed with it, compressed, and its owner's alone " +
			"(0600).\n" +
			where + "  docker compose run --rm -T api backup - > marchproxy.backup",
		Example: "  marchproxy backup marchproxy-$(date +%F).backup",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.byAPI(cmd, state, "backup", args)
		},
	}
	cmd.Flags().StringVar(&state, "state-dir", "", stateDirUsage)
	return cmd
}

func (c *cli) restoreCommand() *cobra.Command {
	var state string
	var replace, check bool
	cmd := &cobra.Command{
		Use: "restore FILE|-", Short: "Make the database what a backup says", Args: cobra.ExactArgs(1),
		Long: "All of the file is loaded beside what there is, and checked: that it is whole, who has signed it, that " +
			"SECRET_KEY opens\n" +
			"what is sealed. Then one transaction puts it in the place of what there was; whatever fails before has changed " +
			"nothing.\n" +
			"The database has another epoch afterwards, so that every Envoy, agent and consumer follows it, also to a lower " +
			"revision.\n" +
			"Apis that run go on with it. A backup of an earlier version is brought to this one.\n" +
			where + "  docker compose run --rm -T api restore -replace - < marchproxy.backup",
		Example: "  marchproxy restore --check marchproxy.backup\n  marchproxy restore --replace marchproxy.backup",
		RunE: func(cmd *cobra.Command, args []string) error {
			for flag, set := range map[string]bool{"--replace": replace, "--check": check} {
				if set {
					args = append([]string{flag}, args...)
				}
			}
			return c.byAPI(cmd, state, "restore", args)
		},
	}
	cmd.Flags().StringVar(&state, "state-dir", "", stateDirUsage)
	cmd.Flags().BoolVar(&replace, "replace", false, "let what the database has go; without it the database has to be "+
		"empty")
	cmd.Flags().BoolVar(&check, "check", false, "do all that can fail, and change nothing")
	return cmd
}

const stateDirUsage = "where marchproxy dev keeps everything, if DATABASE_URL is not set (/var/lib/marchproxy/dev for " +
	"root, otherwise ~/.local/state/marchproxy)"

// byAPI has marchproxy-api do it, which alone speaks to the database, with what dev keeps where the environment says
// nothing.
func (c *cli) byAPI(cmd *cobra.Command, state, what string, args []string) error {
	program, err := dev.API()
	if err != nil {
		return err
	}
	env := os.Environ()
	_, named := c.env("DATABASE_URL")
	_, file := c.env("DATABASE_URL_FILE")
	if !named && !file {
		d, err := dev.OpenDatabase(cmd.Context(), state, func(line string) { fmt.Fprintln(c.err, line) })
		switch {
		case errors.Is(err, dev.ErrNone): // marchproxy-api says what is missing
		case err != nil:
			return err
		default:
			defer d.Close()
			env = d.Environment()
		}
	}
	if c.output == "json" || c.output == "yaml" {
		args = append([]string{"--json"}, args...)
	}
	run := exec.CommandContext(cmd.Context(), program, append([]string{what}, args...)...)
	run.Cancel = func() error { return run.Process.Signal(syscall.SIGTERM) } // it tidies up
	run.Env, run.Stdin, run.Stdout, run.Stderr = env, c.in, c.out, c.err
	err = run.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return errors.New(filepath.Base(program) + " says why, above")
	}
	return err
}
