// Package command is the part of the command line that talks to a running api.
package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// exitError carries an exit code.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// ExitCode is the process's exit code for an error: 2 where diff found drift, 1 otherwise.
func ExitCode(err error) int {
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	return 1
}

type client struct {
	url, token string
}

// Add adds the commands.
func Add(root *cobra.Command) {
	c := &client{}
	root.PersistentFlags().StringVar(&c.url, "api", env("MARCHPROXY_API", "http://127.0.0.1:8000"), "the api's address (MARCHPROXY_API)")
	c.token = os.Getenv("MARCHPROXY_TOKEN")
	root.AddCommand(c.applyCommand(), c.statusCommand(), c.doctorCommand())
}

func env(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

func (c *client) call(ctx context.Context, method, path string, body, into any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.url, "/")+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the api at %s does not answer (%w); is it running? --api or MARCHPROXY_API names another", c.url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= 300 {
		return problemOf(resp)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func problemOf(resp *http.Response) error {
	var p api.Problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		return fmt.Errorf("the api answered %s", resp.Status)
	}
	var b strings.Builder
	b.WriteString(p.Detail)
	for _, v := range p.Errors {
		fmt.Fprintf(&b, "\n  %s %s", v.Path, v.Message)
	}
	return errors.New(b.String())
}

func (c *client) applyCommand() *cobra.Command {
	var file, owner string
	var prune, dry, wait bool
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make the resources of a YAML or JSON file real, in one revision", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			objects, err := readFile(file)
			if err != nil {
				return err
			}
			path := "/v1/apply"
			if wait {
				path += "?wait=live"
			}
			var res api.ApplyResult
			if err := c.call(cmd.Context(), http.MethodPost, path, api.ApplyRequest{Owner: owner, Prune: prune, DryRun: dry, Resources: objects}, &res); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, x := range res.Changes {
				fmt.Fprintf(out, "%s %s/%s\n", x.Action, x.Kind, x.Name)
			}
			fmt.Fprintf(out, "revision %d: %d changed, %d unchanged\n", res.Revision, len(res.Changes), res.Unchanged)
			if res.Live != nil {
				fmt.Fprintf(out, "%s on %d proxies after %.0f ms %s\n", res.Live.State, res.Live.Proxies, res.Live.WaitedMS, res.Live.Reason)
				if res.Live.State == "rejected" || res.Live.State == "timeout" {
					return errors.New("not live: " + res.Live.State)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file to read; - for standard input")
	cmd.Flags().StringVar(&owner, "owner", "", "becomes the owner of the resources")
	cmd.Flags().BoolVar(&prune, "prune", false, "delete what the owner has and the file lacks")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing, say what would change")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until every connected Envoy serves it")
	_ = cmd.MarkFlagRequired("file") // the flag exists
	return cmd
}

// readFile reads resources from a file of YAML documents or JSON.
func readFile(file string) ([]api.Object, error) {
	var raw []byte
	var err error
	if file == "-" {
		raw, err = io.ReadAll(os.Stdin)
	} else {
		raw, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	var out []api.Object
	for i, doc := range strings.Split("\n"+string(raw), "\n---") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		var o api.Object
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
			return nil, fmt.Errorf("%s, document %d: %w", file, i+1, err)
		}
		out = append(out, o)
	}
	return out, nil
}

func (c *client) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "What is accepted, published and live, and on which Envoys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s api.Status
			var p api.ProxyList
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/status", nil, &s); err != nil {
				return err
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/proxies", nil, &p); err != nil {
				return err
			}
			out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintf(out, "revision\t%d\npublished\t%d\nlive\t%d\n\n", s.Revision, s.PublishedRevision, s.LiveRevision)
			fmt.Fprintln(out, "PROXY\tGATEWAY\tAPPLIED\tADDRESS\tVERSION")
			for _, x := range p.Items {
				fmt.Fprintf(out, "%s\t%s\t%d\t%s\t%s\n", x.ID, x.Gateway, x.AppliedRevision, x.Address, x.Version)
			}
			for _, r := range s.Rejected {
				fmt.Fprintf(out, "rejected\t%s/%s\t%s\n", r.Kind, r.Name, r.Reason)
			}
			return out.Flush()
		},
	}
}
