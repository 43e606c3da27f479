package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

func (c *cli) diffCommand() *cobra.Command {
	var f files
	cmd := &cobra.Command{
		Use: "diff -f FILE|DIR...", Short: "Show what apply would change; exit code 2 where that is something",
		Args: cobra.NoArgs,
		Long: "Diff asks the api what applying the files would change (a dry run: every check, no revision), and " +
			"shows it as a\n" +
			"difference between YAML documents. - is what there is, + what the files say.",
		Example: "  marchproxy diff -f routes/ --owner team-a --prune || echo drift",
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			p := c.progress()
			docs, body, err := c.request(p, f)
			if err != nil {
				return err
			}
			body.DryRun = true
			p.say("comparing %s", plural(len(docs), "resource"))
			var res api.ApplyResult
			_, err = a.Do(ctx, client.Request{Method: http.MethodPost, Path: "/v1/apply", Body: body}, &res)
			p.done()
			if err != nil {
				return placed(err, docs)
			}
			return c.differences(res, pairsOf(res.Changes), "live", "files")
		}),
	}
	f.flags(cmd.Flags())
	return cmd
}

// pair is a resource before and after; nil where it is not there.
type pair struct {
	ref           resource.Ref
	before, after *manifest.File
}

func pairsOf(changes []api.Change) []pair {
	out := make([]pair, len(changes))
	for i, x := range changes {
		side := func(spec json.RawMessage, owner string, labels map[string]string) *manifest.File {
			if len(spec) == 0 {
				return nil
			}
			f := manifest.FileOf(api.Object{Kind: x.Kind, Name: x.Name, Spec: spec, Owner: owner, Labels: labels})
			return &f
		}
		out[i] = pair{
			resource.Ref{Kind: x.Kind, Name: x.Name},
			side(x.Before, x.OwnerBefore, x.LabelsBefore), side(x.After, x.OwnerAfter, x.LabelsAfter),
		}
	}
	return out
}

// differences shows changes; its error has the exit code for drift where there are any.
func (c *cli) differences(value any, pairs []pair, from, to string) error {
	if !c.people() {
		if err := c.print(value, nil); err != nil {
			return err
		}
	} else if err := c.unified(pairs, from, to); err != nil {
		return err
	}
	if len(pairs) == 0 {
		return nil
	}
	verb := "differ"
	if len(pairs) == 1 {
		verb = "differs"
	}
	return &codeError{exitDrift, plural(len(pairs), "resource") + " " + verb}
}

// unified prints a unified diff of each pair.
func (c *cli) unified(pairs []pair, from, to string) error {
	colour := c.colour()
	for _, x := range pairs {
		before, err := text(x.before)
		if err != nil {
			return err
		}
		after, err := text(x.after)
		if err != nil {
			return err
		}
		from, to := from+" "+x.ref.String(), to+" "+x.ref.String()
		switch {
		case x.before == nil:
			from = "/dev/null"
		case x.after == nil:
			to = "/dev/null"
		}
		out := udiff.Unified(from, to, before, after)
		if out == "" {
			out = fmt.Sprintf("--- %s\n+++ %s\nthe difference is in a secret, which is not shown\n", from, to)
		}
		if colour {
			out = coloured(out)
		}
		if _, err := io.WriteString(c.out, out); err != nil {
			return err
		}
	}
	return nil
}

func text(f *manifest.File) (string, error) {
	if f == nil {
		return "", nil
	}
	var b bytes.Buffer
	err := manifest.WriteYAML(&b, []*manifest.File{f})
	return b.String(), err
}

func coloured(diff string) string {
	var b strings.Builder
	for line := range strings.Lines(diff) {
		colour := ""
		switch {
		case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
			colour = "\x1b[1m"
		case strings.HasPrefix(line, "@@"):
			colour = "\x1b[36m"
		case strings.HasPrefix(line, "-"):
			colour = "\x1b[31m"
		case strings.HasPrefix(line, "+"):
			colour = "\x1b[32m"
		}
		if colour == "" {
			b.WriteString(line)
			continue
		}
		b.WriteString(colour + strings.TrimSuffix(line, "\n") + "\x1b[0m\n")
	}
	return b.String()
}
