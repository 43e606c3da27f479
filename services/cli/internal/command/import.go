package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/importer"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

func (c *cli) importCommand() *cobra.Command {
	var o importer.Options
	var f files
	var w waiting
	var apply, listed bool
	names, says := importer.Formats()
	cmd := &cobra.Command{
		Use: "import FILE...", Short: "Make resources of another proxy's configuration, and list what cannot be",
		Args: cobra.MinimumNArgs(1),
		Long: "The resources are written to standard output, as apply takes them, and what is left out to standard error, line by " +
			"line\nwith the reason and what to do. Nothing is guessed: a route that could be made only in part, or whose protection\n" +
			"cannot be translated, answers 503 until you have written it. Nothing is changed without --apply. Exit code 2 where\n" +
			"something is left out, with --apply too. Formats, known by their content:\n\n" + says,
		Example: "  marchproxy import /etc/nginx/nginx.conf > imported.yaml\n" +
			"  marchproxy import traefik.yml dynamic.yml --agree-terms\n" +
			"  marchproxy import database.sqlite --apply --owner npm --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := importer.Read(cmd.Context(), args, o)
			if err != nil {
				return err
			}
			for _, n := range r.Notes {
				row(c.err, n)
			}
			if apply {
				err = c.use(func(ctx context.Context, a *client.Client, _ []string) error {
					return c.applyImported(ctx, a, f, w, r, listed)
				})(cmd, args)
			} else {
				err = c.printImported(r, f.secrets)
			}
			if err == nil && len(r.Notes) > 0 {
				err = &codeError{exitDrift, plural(len(r.Notes), "line") + " above could not be taken over as they were"}
			}
			return err
		},
	}
	set := cmd.Flags()
	set.StringVar(&o.From, "from", "", "the format, where its content does not say: "+strings.Join(names, ", "))
	set.StringVar(&o.Gateway, "gateway", "default", "the gateway of the listeners and routes")
	set.BoolVar(&o.Agreed, "agree-terms", false,
		"agree to the terms of the authorities from which certificates are ordered "+
			"(Let's Encrypt, where the original does not name another one)")
	set.StringVar(&f.secrets, "secrets", "",
		"file to be written, with the secrets that are found, as apply --secrets takes it; "+
			"what is printed is without them")
	set.BoolVar(&apply, "apply", false, "apply the resources, secrets included; asks for --owner")
	set.StringVar(&f.owner, "owner", "", "with --apply: becomes the owner of the resources")
	set.BoolVar(&f.takeOver, "take-over", false, "with --apply: also change what belongs to another owner")
	set.BoolVar(&listed, "despite-list", false, "with --apply: apply although something is left out")
	w.flags(set)
	f.ownerGiven = func() bool { return set.Changed("owner") }
	_ = cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions(names,
		cobra.ShellCompDirectiveNoFileComp)) // it is there
	return cmd
}

// printImported prints resources without their secrets, which go to a file.
func (c *cli) printImported(r importer.Result, file string) error {
	secrets := manifest.TakeSecrets(r.Files)
	if file != "" {
		if err := writeSecrets(file, secrets); err != nil {
			return err
		}
	} else if len(secrets) > 0 {
		fmt.Fprintf(c.err, "secrets of %s are not in what is printed; --secrets FILE writes them for apply --secrets\n",
			plural(len(secrets), "resource"))
	}
	if c.output == "json" {
		items := r.Files
		if items == nil {
			items = []manifest.File{}
		}
		left := r.Notes
		if left == nil {
			left = []importer.Note{}
		}
		return c.print(map[string]any{"from": r.From, "items": items, "left_out": left}, nil)
	}
	return manifest.WriteYAML(c.out, r.Files)
}

// writeSecrets writes a secrets file that nobody else can read. One that is there is not written over.
func writeSecrets(path string, secrets map[string]map[string]string) error {
	raw, err := json.Marshal(secrets)
	if err != nil {
		return err
	}
	text, err := manifest.YAML(raw)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("secrets: %w; name a file that is not there", err)
	}
	_, err = out.Write(text)
	return errors.Join(err, out.Close())
}

// applyImported applies resources as apply does.
func (c *cli) applyImported(
	ctx context.Context, a *client.Client, f files, w waiting, r importer.Result, despite bool,
) error {
	switch {
	case f.owner == "":
		return errors.New("--apply needs --owner: by it the resources can be found, changed and pruned later")
	case len(r.Notes) > 0 && !despite:
		return &codeError{exitDrift, "nothing is applied, because " + plural(len(r.Notes), "line") +
			" above could not be taken " +
			"over; look at them, and give --despite-list where that is meant"}
	}
	if len(r.Files) == 0 {
		return errors.New("there is nothing to apply")
	}
	docs, err := manifest.Documents(r.Files)
	if err != nil {
		return err
	}
	body := transaction{api.ApplyRequest{
		Owner: f.owner, TakeOver: f.takeOver, Message: "imported from " + r.From,
	}, []manifest.File{}}
	for _, d := range docs {
		body.Resources = append(body.Resources, d.Content())
	}
	return c.send(ctx, a, c.progress(), w, docs, body)
}
