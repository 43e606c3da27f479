package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

func (c *cli) exportCommand() *cobra.Command {
	var f filters
	var keys bool
	cmd := &cobra.Command{
		Use: "export [KIND...]", Short: "The configuration as YAML documents that apply takes again",
		Long: "Everything of one revision, without what the server sets. Secrets do not leave the api: applying the\n" +
			"documents where they come from keeps the stored ones; elsewhere apply --secrets gives them, and a comment at\n" +
			"the top lists them. EndpointSets, which are what was found, are left out unless they are named. The keys of\n" +
			"Envoys (api_keys of a Gateway) belong to the place and are left out, so that applying the documents elsewhere\n" +
			"keeps the keys of that place.",
		Example: "  marchproxy export > all.yaml && marchproxy diff -f all.yaml\n  marchproxy export routes " +
			"services --owner team-a",
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
			for i := range all {
				if apart := config.KindOf(all[i].Kind).Apart; !keys && apart != "" {
					if all[i].Spec, err = manifest.Without(all[i].Spec, apart); err != nil {
						return err
					}
				}
			}
			if c.output == "json" {
				return c.print(map[string]any{"items": all, "revision": revision}, nil)
			}
			if _, err := fmt.Fprintf(c.out, "# MarchProxy, revision %d: %s\n", revision,
				plural(len(all), "resource")); err != nil {
				return err
			}
			if err := withheld(c.out, all); err != nil {
				return err
			}
			return manifest.WriteYAML(c.out, all)
		}),
	}
	f.flags(cmd.Flags())
	cmd.Flags().BoolVar(&keys, "api-keys", false, "with the names of Envoys' keys, which keep the stored ones where "+
		"they are applied; elsewhere --secrets gives them")
	return cmd
}

// withheld lists the secrets that an export leaves out.
func withheld(w io.Writer, all []manifest.File) error {
	wanted := map[string][]string{}
	for _, f := range all {
		if fields := f.Withheld(); len(fields) > 0 {
			wanted[f.Kind+"/"+f.Name] = fields
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	text := "Secrets are not in it. Where they are not stored, apply needs --secrets FILE:" + template(wanted)
	_, err := fmt.Fprintf(w, "# %s\n", strings.ReplaceAll(text, "\n", "\n# "))
	return err
}

// snapshot reads kinds at one revision: each page is of one moment, so what was written in between shows
// in the pages' revisions, and everything is read again.
func (c *cli) snapshot(
	ctx context.Context, a *client.Client, kinds []resource.Kind, f filters,
) (all []manifest.File, revision int64, err error) {
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
