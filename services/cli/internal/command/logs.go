package command

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

func (c *cli) logsCommand() *cobra.Command {
	flags := []struct {
		name, what string
		value      string
	}{
		{name: "host", what: "only requests for this host, or for all below example.com with *.example.com"},
		{name: "route", what: "only requests that this route took"},
		{name: "status", what: "only answers with one of these, such as 404,5xx"},
		{name: "method", what: "only requests with this method"},
		{name: "path", what: "only paths that begin so, such as /cart"},
		{name: "gateway", what: "only Envoys of this gateway"},
		{name: "proxy", what: "only the Envoy with this node id"},
	}
	cmd := &cobra.Command{
		Use: "logs", Short: "Follow the requests that Envoys answer, until Ctrl-C", Args: cobra.NoArgs,
		Long: "A request is shown as soon as it is answered, without its query; what came before is in the access log's " +
			"sinks.\n" +
			"Envoys with much to do tell of a share of their requests: the lines say so. With -o json each request is one line.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.api()
			if err != nil {
				return err
			}
			q := url.Values{}
			for _, f := range flags {
				if f.value != "" {
					q.Set(f.name, f.value)
				}
			}
			var s logShower
			return a.AccessLog(cmd.Context(), q, func(e client.Event) error { return s.take(c, e) })
		},
	}
	for i := range flags {
		cmd.Flags().StringVar(&flags[i].value, flags[i].name, "", flags[i].what)
	}
	return cmd
}

// logShower writes requests, and to people in between what has become of the Envoys.
type logShower struct{ said string }

func (s *logShower) take(c *cli, e client.Event) error {
	switch e.Type {
	case "entry":
		var x api.AccessLogEntry
		if err := json.Unmarshal(e.Data, &x); err != nil {
			return fmt.Errorf("read entry: %w", err)
		}
		switch c.output {
		case "json":
			return json.NewEncoder(c.out).Encode(x)
		case "yaml":
			if _, err := fmt.Fprintln(c.out, "---"); err != nil {
				return err
			}
			return manifest.WriteYAML(c.out, []api.AccessLogEntry{x})
		}
		row(c.out, logLine(x))
	case "state":
		var x api.AccessLogState
		if err := json.Unmarshal(e.Data, &x); err != nil {
			return fmt.Errorf("read state: %w", err)
		}
		if said := logState(x); said != s.said {
			s.said = said
			row(c.err, said)
		}
	}
	return nil
}

// logLine is a request for people.
func logLine(x api.AccessLogEntry) string {
	status, at := fmt.Sprint(x.Status), x.Time
	if x.Status == 0 {
		status = "---"
	}
	if len(at) > 12 {
		at = strings.TrimSuffix(at[11:], "Z") // the day is today
	}
	to := or(x.Route, "no route")
	if x.Service != "" {
		to += " → " + x.Service + " " + x.Upstream
	}
	line := fmt.Sprintf("%s  %s  %s %s%s  %d ms  %s  %s", at, status, x.Method, x.Host, x.Path, x.DurationMS, to, x.Client)
	if x.Flags != "" {
		line += "  " + x.Flags + " " + x.Details
	}
	return line
}

// logState says in a line who tells, and of how much.
func logState(x api.AccessLogState) string {
	switch {
	case x.Proxies+x.Silent == 0:
		return "no Envoy is connected"
	case x.Reason != "":
		return x.Reason
	}
	said := proxies(int(x.Proxies)) + " " + map[bool]string{true: "tells", false: "tell"}[x.Proxies == 1] + " of "
	if x.Share < 1 {
		said += fmt.Sprintf("1 of %.0f requests or more", 1/x.Share)
	} else {
		said += "every request"
	}
	if x.Silent > 0 {
		said += fmt.Sprintf("; %d told nothing: no agent runs it, or one of an older version", x.Silent)
	}
	if x.Dropped > 0 {
		said += fmt.Sprintf("; %d entries came too fast to be read", x.Dropped)
	}
	return said
}
