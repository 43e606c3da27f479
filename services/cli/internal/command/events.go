package command

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

// event is a line of -o json.
type event struct {
	Event string          `json:"event"`
	ID    string          `json:"id,omitempty"`
	Data  json.RawMessage `json:"data"`
}

func (c *cli) eventsCommand() *cobra.Command {
	var from int64
	var revisions bool
	cmd := &cobra.Command{
		Use: "events", Short: "Follow every revision and what is live, until Ctrl-C", Args: cobra.NoArgs,
		Long: "After a break it comes back by itself and misses no revision. With -o json each event is one line; the " +
			"id of the last\n" +
			"one is what --after continues from.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.api()
			if err != nil {
				return err
			}
			start := ""
			if cmd.Flags().Changed("after") {
				if _, err := revision(fmt.Sprint(from)); err != nil {
					return err
				}
				start = fmt.Sprint(from)
			}
			return a.Events(cmd.Context(), start, func(e client.Event) error {
				if revisions && e.Type != "revision" {
					return nil
				}
				return c.event(e)
			})
		},
	}
	cmd.Flags().Int64Var(&from, "after", 0, "begin after this revision instead of now; 0 for the whole history")
	cmd.Flags().BoolVar(&revisions, "revisions", false, "only revisions, not what is live")
	return cmd
}

func (c *cli) event(e client.Event) error {
	x := event{e.Type, e.ID, e.Data}
	switch {
	case c.output == "json":
		return json.NewEncoder(c.out).Encode(x)
	case c.output == "yaml":
		if _, err := fmt.Fprintln(c.out, "---"); err != nil {
			return err
		}
		return manifest.WriteYAML(c.out, []event{x})
	case e.Type == "revision":
		var r resource.Commit
		if err := json.Unmarshal(e.Data, &r); err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		row(c.out, fmt.Sprintf("%s  revision %d by %s: %s  %s", date(r.At), r.Revision, r.Actor, changed(r.Changes),
			r.Message))
	default:
		var s api.LiveStatus
		if err := json.Unmarshal(e.Data, &s); err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		row(c.out, fmt.Sprintf("                     live: revision %d on %s", s.LiveRevision, proxies(int(s.Proxies))))
		if s.LaggingProxies > 0 {
			row(c.out, "                     "+proxies(int(s.LaggingProxies))+" lagging; marchproxy status says which")
		}
		for _, p := range s.Progress {
			row(c.out, "                     busy: "+p.Who+": "+p.String())
		}
		if s.UnresolvedNames > 0 {
			row(c.out, "                     "+plural(int(s.UnresolvedNames), "name")+" without an answer from DNS; "+
				"marchproxy status says which")
		}
		for _, r := range s.Rejected {
			row(c.out, fmt.Sprintf("                     refused: %s/%s on gateway %s: %s", r.Kind, r.Name, r.Gateway, r.Reason))
		}
	}
	return nil
}

// changed names the first few of a revision's resources; - is for deleted ones.
func changed(all []resource.ChangedResource) string {
	if len(all) == 0 {
		return "many resources"
	}
	var out []string
	for _, x := range all[:min(len(all), 5)] {
		name := x.Kind + "/" + x.Name
		if x.Deleted {
			name = "-" + name
		}
		out = append(out, name)
	}
	if len(all) > len(out) {
		out = append(out, fmt.Sprintf("and %d more", len(all)-len(out)))
	}
	return strings.Join(out, " ")
}
