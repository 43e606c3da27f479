package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

func (c *cli) exportCommand() *cobra.Command {
	var f filters
	cmd := &cobra.Command{
		Use: "export [KIND...]", Short: "The configuration as YAML documents that apply takes again",
		Long: "Everything of one revision, without what the server sets. Secrets do not leave the api: applying the documents where\n" +
			"they come from keeps the stored private keys; elsewhere those have to be added first.",
		Example:           "  marchproxy export > all.yaml && marchproxy diff -f all.yaml\n  marchproxy export routes services --owner team-a",
		ValidArgsFunction: cobra.FixedCompletions(paths(), cobra.ShellCompDirectiveNoFileComp),
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			kinds, err := kindsOf(args)
			if err != nil {
				return err
			}
			all, revision, err := c.snapshot(ctx, a, kinds, f)
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.print(map[string]any{"items": all, "revision": revision}, nil)
			}
			if _, err := fmt.Fprintf(c.out, "# MarchProxy, revision %d: %s\n", revision, plural(len(all), "resource")); err != nil {
				return err
			}
			return manifest.WriteYAML(c.out, all)
		}),
	}
	f.flags(cmd.Flags())
	return cmd
}

// snapshot reads kinds at one revision: each page is of one moment, so what was written in between shows
// in the pages' revisions, and everything is read again.
func (c *cli) snapshot(ctx context.Context, a *client.Client, kinds []resource.Kind, f filters) (all []manifest.File, revision int64, err error) {
	p := c.progress()
	defer p.done()
	for range 10 {
		all, revision = []manifest.File{}, -1
		same := true
		for _, k := range kinds {
			if k.Name != resource.KindRoute && (f.host != "" || f.service != "") {
				continue
			}
			p.say("reading %s", k.Path)
			objects, at, one, err := a.List(ctx, k.Path, f.query())
			if err != nil {
				return nil, 0, err
			}
			same = same && one && (revision == -1 || revision == at)
			revision = at
			for _, o := range objects {
				all = append(all, manifest.FileOf(o))
			}
		}
		if same {
			return all, revision, nil
		}
	}
	return nil, 0, errors.New("the configuration changed each time while it was read; try again when fewer write")
}
