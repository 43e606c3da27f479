package command

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) limitsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "limits POLICY", Short: "What each node makes of a rate limit policy; exit code 3 where one does not enforce it",
		Args: cobra.ExactArgs(1),
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			var s api.RateLimitStatus
			if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/rate-limit-policies/" +
				url.PathEscape(args[0]) + "/status"}, &s); err != nil {
				k, _ := resource.KindByName(resource.KindRateLimit)
				return notFound(err, k, args[0])
			}
			if err := c.print(s, func(w io.Writer) { limitsTable(w, s) }); err != nil {
				return err
			}
			for _, n := range s.Nodes {
				if n.Interface != "" && !n.Live {
					return &codeError{exitNotLive, fmt.Sprintf("node %s does not enforce revision %d", n.ID, s.Revision)}
				}
			}
			return nil
		}),
	}
}

func limitsTable(w io.Writer, s api.RateLimitStatus) {
	if len(s.Nodes) == 0 {
		row(w, "no node that the policy selects is connected")
		return
	}
	row(w, "NODE", "INTERFACE", "MODE", "REVISION", "PASSED", "LIMITED", "DROPPED ON THE NODE")
	for _, n := range s.Nodes {
		revision := fmt.Sprint(n.AppliedRevision)
		if n.AppliedRevision != s.Revision {
			revision += fmt.Sprintf(" of %d", s.Revision)
		}
		var dropped []string
		for _, reason := range slices.Sorted(maps.Keys(n.Dropped)) {
			dropped = append(dropped, fmt.Sprintf("%s %d", reason, n.Dropped[reason]))
		}
		row(w, n.ID, orDash(n.Interface), orDash(n.Mode), revision, n.Passed, n.Limited, orDash(strings.Join(dropped, ", ")))
	}
	for _, n := range s.Nodes {
		if n.Reason != "" {
			row(w, n.ID+": "+n.Reason)
		}
		for _, warning := range n.Warnings {
			row(w, n.ID+": "+warning)
		}
		for _, x := range n.Sources {
			row(w, n.ID, "source "+x.Address, "", "", "", x.Limited)
		}
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
