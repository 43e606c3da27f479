package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

type target struct {
	kind resource.Kind
	name string
	// owner that the resource must have, if any; "" where that is not said.
	owner string
}

func (c *cli) deleteCommand() *cobra.Command {
	var paths []string
	var w waiting
	var missing, takeOver bool
	var message string
	cmd := &cobra.Command{
		Use: "delete KIND NAME... | -f FILE|DIR...", Short: "Delete resources, one revision each",
		Long: "Each resource is read and deleted only if it is still as it was read. What others refer to is not " +
			"deleted: with -f\n" +
			"those that refer go first. To delete many in one revision: apply --owner OWNER --prune without them.\n" +
			"A resource for which a file names an owner is not deleted where it belongs to another one.",
		Example:           "  marchproxy delete route hello --wait\n  marchproxy delete -f routes/",
		ValidArgsFunction: c.completeKinds,
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			targets, err := c.targets(args, paths)
			if err != nil {
				return err
			}
			q, err := w.query()
			if err != nil {
				return err
			}
			if message != "" {
				q.Set("message", message)
			}
			if takeOver {
				q.Set("take_over", "true")
			}
			all := api.ApplyResult{Changes: []api.Change{}}
			p := c.progress()
			for i, t := range targets {
				if len(targets) > 1 {
					p.say("deleting %d of %d: %s/%s", i+1, len(targets), t.kind.Name, t.name)
				}
				res, err := c.delete(ctx, a, p, w, q, t)
				if gone(err) && missing {
					all.Unchanged++
					continue
				}
				if err != nil {
					if len(all.Changes) > 0 {
						err = fmt.Errorf("%w\n%s had been deleted before, up to revision %d", err, plural(len(all.Changes), "resource"),
							all.Revision)
					}
					return notFound(err, t.kind, t.name)
				}
				all.Revision, all.Live = res.Revision, res.Live
				all.Changes = append(all.Changes, res.Changes...)
				if err := notLive(res.Live); err != nil {
					return err
				}
			}
			return c.deleted(all)
		}),
	}
	cmd.Flags().StringArrayVarP(&paths, "file", "f", nil, fileUsage)
	cmd.Flags().BoolVar(&missing, "ignore-not-found", false, "what is not there is no error")
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "delete also what belongs to another owner than the file says")
	cmd.Flags().StringVarP(&message, "message", "m", "", "why, for the history")
	w.flags(cmd.Flags())
	return cmd
}

func (c *cli) targets(args, paths []string) ([]target, error) {
	var out []target
	switch {
	case len(paths) > 0 && len(args) > 0:
		return nil, errors.New("give names or -f, not both")
	case len(paths) > 0:
		docs, err := c.read(c.progress(), paths)
		if err != nil {
			return nil, err
		}
		for _, k := range slices.Backward(resource.Kinds) { // what refers to others first
			for _, d := range docs {
				if d.Kind == k.Name {
					out = append(out, target{k, d.Name, d.Owner})
				}
			}
		}
		for _, d := range docs {
			if _, known := resource.KindByName(d.Kind); !known {
				return nil, errors.New(d.Says("$.kind", "is no kind"))
			}
		}
	case len(args) > 0:
		k, names, err := refs(args)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			out = append(out, target{k, name, ""})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("nothing to delete is named: marchproxy delete KIND NAME..., or -f FILE")
	}
	return out, nil
}

func (c *cli) delete(
	ctx context.Context, a *client.Client, p *progress, w waiting, q url.Values, t target,
) (api.ApplyResult, error) {
	var res api.ApplyResult
	_, etag, err := a.Get(ctx, t.kind.Path, t.name)
	if err != nil {
		return res, err
	}
	if t.owner != "" {
		q = maps.Clone(q)
		q.Set("owner", t.owner)
	}
	r := client.Request{
		Method: http.MethodDelete, Path: "/v1/" + t.kind.Path + "/" + url.PathEscape(t.name), Query: q,
		IfMatch: etag, Once: true,
	}
	return res, c.write(ctx, a, p, w, r, &res)
}

func (c *cli) deleted(all api.ApplyResult) error {
	return c.print(all, func(w io.Writer) {
		for _, x := range all.Changes {
			row(w, fmt.Sprintf("deleted %s/%s", x.Kind, x.Name))
		}
		if all.Unchanged > 0 {
			row(w, plural(int(all.Unchanged), "resource"), "not there")
		}
		c.liveRow(w, all.Live)
	})
}

func gone(err error) bool {
	var p *client.Problem
	return errors.As(err, &p) && p.Status == http.StatusNotFound
}
