package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

// filters narrow a list.
type filters struct{ owner, label, host, service, prefix string }

func (f *filters) flags(set *pflag.FlagSet) {
	set.StringVar(&f.owner, "owner", "", "only what this owner has")
	set.StringVarP(&f.label, "label", "l", "", "only what has this label: name=value")
	set.StringVar(&f.host, "host", "", "only routes that list this host")
	set.StringVar(&f.service, "service", "", "only routes that send to this service")
	set.StringVar(&f.prefix, "prefix", "", "only names that begin so")
}

func (f filters) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{
		"owner": f.owner, "label": f.label, "host": f.host, "service": f.service,
		"q": f.prefix,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

func (c *cli) getCommand() *cobra.Command {
	var f filters
	cmd := &cobra.Command{
		Use: "get KIND|all [NAME]", Short: "Show resources, and what the Envoys make of them", Args: cobra.RangeArgs(1, 2),
		Long: "A kind may be written as people do: Route, routes, or its first letters. -o yaml prints documents " +
			"that apply takes.",
		Example: "  marchproxy get routes --host a.example.com\n  marchproxy get service web -o yaml\n" +
			"  marchproxy get all --owner team-a",
		ValidArgsFunction: c.completeKinds,
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			if args[0] == "all" {
				if len(args) > 1 {
					return errors.New("a name needs a kind: marchproxy get KIND NAME")
				}
				return c.getAll(ctx, a, resource.Kinds, f)
			}
			k, names, err := refs(args)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				return c.getAll(ctx, a, []resource.Kind{k}, f)
			}
			if len(f.query()) > 0 {
				return errors.New("filters are for lists; leave them out, or leave out the name")
			}
			o, _, err := a.Get(ctx, k.Path, names[0])
			if err != nil {
				return notFound(err, k, names[0])
			}
			return c.print(o, func(w io.Writer) { table(w, []api.Object{o}, false) })
		}),
	}
	f.flags(cmd.Flags())
	return cmd
}

func (c *cli) getAll(ctx context.Context, a *client.Client, kinds []resource.Kind, f filters) error {
	p := c.progress()
	var all []api.Object
	var revision int64
	for _, k := range kinds {
		if len(kinds) > 1 && k.Name != resource.KindRoute && (f.host != "" || f.service != "") {
			continue // only routes have hosts and services
		}
		p.say("reading %s", k.Path)
		objects, at, _, err := a.List(ctx, k.Path, f.query())
		if err != nil {
			p.done()
			return err
		}
		all, revision = append(all, objects...), at
	}
	p.done()
	if c.output == "yaml" {
		return manifest.WriteYAML(c.out, all)
	}
	if all == nil {
		all = []api.Object{}
	}
	return c.print(api.ObjectList{Items: all, Revision: revision}, func(w io.Writer) {
		if len(all) == 0 {
			row(w, fmt.Sprintf("nothing found at revision %d", revision))
			return
		}
		table(w, all, len(kinds) > 1)
	})
}

func table(w io.Writer, objects []api.Object, kind bool) {
	head := []any{"NAME", "OWNER", "REVISION", "STATE", "SPEC"}
	if kind {
		head = append([]any{"KIND"}, head...)
	}
	row(w, head...)
	for _, o := range objects {
		state := ""
		if o.Status != nil {
			state = o.Status.State
		}
		cells := []any{o.Name, or(o.Owner, "-"), o.Revision, or(state, "-"), summary(o.Spec, 70)}
		if kind {
			cells = append([]any{o.Kind}, cells...)
		}
		row(w, cells...)
	}
	for _, o := range objects {
		switch {
		case o.Status == nil || o.Status.Reason == "":
		case o.Status.State == "rejected":
			fmt.Fprintf(w, "\n%s/%s was refused by an Envoy, which serves its last good version: %s\n", o.Kind, o.Name,
				o.Status.Reason)
		case o.Kind == resource.KindService: // about its names
			fmt.Fprintf(w, "\n%s/%s is %s: %s\n", o.Kind, o.Name, o.Status.State, o.Status.Reason)
		}
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// notFound says where to look for what is there.
func notFound(err error, k resource.Kind, name string) error {
	if gone(err) {
		return fmt.Errorf("there is no %s %q; marchproxy get %s lists them", k.Name, name, k.Path)
	}
	return err
}
