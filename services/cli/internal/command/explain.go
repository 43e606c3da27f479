package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) explainCommand() *cobra.Command {
	var ask api.ExplainRequest
	var headers []string
	cmd := &cobra.Command{
		Use: "explain URL", Short: "Say what an Envoy would do with a request, and why", Args: cobra.ExactArgs(1),
		Long: "Say which listener, route, auth policy, limits, license and service a request would take, why the other " +
			"routes of the host\ndo not match, and how it would be answered. Nothing is sent to an Envoy, and what the request " +
			"holds is stored nowhere.",
		Example: "  marchproxy explain https://shop.example.com/basket\n" +
			"  marchproxy explain http://shop.example.com/api -X POST -H 'Authorization: Bearer x' --source 203.0.113.7\n" +
			"  marchproxy explain http://shop.example.com/api -H @headers.txt -o json",
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			if err := readURL(args[0], &ask); err != nil {
				return err
			}
			for _, h := range headers {
				if err := c.readHeaders(h, &ask); err != nil {
					return err
				}
			}
			var e api.Explanation
			if _, err := a.Do(ctx, client.Request{Method: http.MethodPost, Path: "/v1/explain", Body: ask}, &e); err != nil {
				return err
			}
			return c.print(e, func(w io.Writer) { explainTable(w, e) })
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&ask.Method, "request", "X", "", "the method, GET where it is not given")
	f.StringArrayVarP(&headers, "header", "H", nil, "a header, 'Name: value', or @FILE with one a line; may be repeated")
	f.StringVar(&ask.Source, "source", "", "the client's address, for limits by address")
	f.StringVar(&ask.Gateway, "gateway", "", "the gateway, default where it is not given")
	f.StringVar(&ask.Listener, "listener", "", "the listener; otherwise one of the URL's scheme and port, or of its scheme")
	f.StringVar(&ask.ServerName, "server-name", "", "what the client names in the TLS handshake (SNI); otherwise the host")
	return cmd
}

// readURL reads scheme, host and path of a URL as they are written: what is odd about them may be what is asked about.
func readURL(raw string, into *api.ExplainRequest) error {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || (scheme != "http" && scheme != "https") {
		return fmt.Errorf("%q is no URL such as https://shop.example.com/basket", raw)
	}
	into.Scheme = scheme
	rest, _, _ = strings.Cut(rest, "#") // clients do not send it
	into.Host, into.Path = rest, "/"
	if at := strings.IndexAny(rest, "/?"); at >= 0 {
		into.Host, into.Path = rest[:at], rest[at:]
	}
	if strings.HasPrefix(into.Path, "?") {
		into.Path = "/" + into.Path
	}
	if strings.Contains(into.Host, "@") {
		return errors.New("the URL has a user or a password; give an Authorization header in its place")
	}
	var path strings.Builder
	for _, b := range []byte(into.Path) { // as browsers and curl write what no request can have
		if b <= ' ' || b >= 0x7f {
			fmt.Fprintf(&path, "%%%02X", b)
		} else {
			path.WriteByte(b)
		}
	}
	into.Path = path.String()
	return nil
}

// readHeaders reads a header, or a file with some.
func (c *cli) readHeaders(arg string, into *api.ExplainRequest) error {
	lines := []string{arg}
	if file, is := strings.CutPrefix(arg, "@"); is {
		raw, err := c.readFile(file)
		if err != nil {
			return err
		}
		lines = strings.Split(strings.TrimSpace(string(raw)), "\n")
	}
	for _, line := range lines {
		name, value, found := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case !found:
			return errors.New("a header is written 'Name: value'") // it may be a token, which is not to be repeated
		case strings.EqualFold(name, "host"):
			into.Host = value
		default:
			into.Headers = append(into.Headers, api.HeaderField{Name: name, Value: value})
		}
	}
	return nil
}

func (c *cli) readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(c.in)
	}
	return os.ReadFile(name)
}

func explainTable(w io.Writer, e api.Explanation) {
	row(w, e.Summary)
	if e.Provided != "" {
		row(w, "provided that "+e.Provided)
	}
	row(w)
	for _, s := range e.Steps {
		row(w, s.Step, s.Says)
	}
	if len(e.Services) > 1 {
		row(w)
		row(w, "SERVICE", "SHARE")
		for _, s := range e.Services {
			row(w, s.Name, fmt.Sprintf("%.3g%%", s.Percent))
		}
	}
	if len(e.Candidates) == 0 {
		return
	}
	row(w)
	row(w, "ROUTE OF "+e.Host, "")
	for _, r := range e.Candidates {
		if r.Matches {
			r.Reason = "matches"
		}
		row(w, r.Route, r.Reason)
	}
	if e.More > 0 {
		row(w, fmt.Sprintf("and %d more", e.More))
	}
}
