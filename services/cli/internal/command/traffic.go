package command

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) trafficCommand() *cobra.Command {
	return &cobra.Command{
		Use: "traffic", Short: "What the Envoys did in the last ten minutes: requests, answers, latency", Args: cobra.NoArgs,
		Long: "A line a gateway, and what the nodes' kernels dropped. The agents tell of it every ten seconds; with -o json\n" +
			"each interval is there.",
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			s, err := metricsSummary(ctx, a)
			if err != nil {
				return err
			}
			return c.print(s, func(w io.Writer) { trafficTable(w, s) })
		}),
	}
}

func metricsSummary(ctx context.Context, a *client.Client) (s api.MetricsSummary, err error) {
	_, err = a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/metrics/summary"}, &s)
	return s, err
}

func trafficTable(w io.Writer, s api.MetricsSummary) {
	row(w, "GATEWAY", "ENVOYS", "REQUESTS", "A SECOND", "4XX", "5XX", "P50", "P95", "P99")
	for _, g := range s.Gateways {
		intervals := g.Intervals
		if n := len(intervals); n > 0 && intervals[n-1].Reports < g.Reporting {
			intervals = intervals[:n-1] // not every Envoy has told of it yet
		}
		rate := "-"
		if seconds := len(intervals) * int(s.IntervalSeconds); seconds > 0 {
			var requests int64
			for _, i := range intervals {
				requests += i.Requests
			}
			rate = fmt.Sprintf("%.1f", float64(requests)/float64(seconds))
		}
		p50, p95, p99 := "-", "-", "-"
		if l := g.Latency; l != nil {
			p50, p95, p99 = milliseconds(l.P50), milliseconds(l.P95), milliseconds(l.P99)
		}
		row(w, g.Gateway, g.Proxies, g.Requests, rate, g.Answers.ClientError, g.Answers.ServerError, p50, p95, p99)
	}
	for _, d := range s.Dropped {
		row(w, fmt.Sprintf("the kernels dropped %d packets: %s", d.Packets, words(d.Reason)))
	}
	silent(w, s.Silent, int(s.SilentProxies))
	if n := max(int(s.UnhealthyServices), len(s.Unhealthy)); n > 0 {
		row(w, plural(n, "service")+" with endpoints that fail: marchproxy health")
	}
}

// silent names Envoys of which nobody tells, all of them where the list was cut.
func silent(w io.Writer, some []api.HealthReport, all int) {
	for _, p := range some {
		row(w, fmt.Sprintf("of Envoy %s nothing is known: %s", p.Proxy, or(p.Reason, p.State)))
	}
	if more := all - len(some); more > 0 {
		row(w, fmt.Sprintf("nor of %s more", proxies(more)))
	}
}

func milliseconds(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

func (c *cli) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use: "health [SERVICE]", Short: "Which endpoints get requests, and which fail at which Envoys", Args: cobra.MaximumNArgs(1),
		Long: "Without a name: the services with endpoints that fail. With one: each endpoint of the service as the Envoys " +
			"see it,\nand the order of its places where they are ordered by latency.",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return c.completeKinds(cmd, []string{"services"}, toComplete)
		},
		RunE: c.use(func(ctx context.Context, a *client.Client, args []string) error {
			if len(args) == 0 {
				s, err := metricsSummary(ctx, a)
				if err != nil {
					return err
				}
				return c.print(s.Unhealthy, func(w io.Writer) { unhealthyTable(w, s) })
			}
			var h api.ServiceHealth
			path := "/v1/services/" + url.PathEscape(args[0]) + "/health"
			if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: path}, &h); err != nil {
				k, _ := kindOf("services")
				return notFound(err, k, args[0])
			}
			return c.print(h, func(w io.Writer) { healthTable(w, h) })
		}),
	}
}

func unhealthyTable(w io.Writer, s api.MetricsSummary) {
	if len(s.Unhealthy) == 0 {
		row(w, "no Envoy tells of an endpoint that fails")
	} else {
		row(w, "SERVICE", "ENDPOINT", "WHY", "ENVOYS")
	}
	for _, u := range s.Unhealthy {
		for _, e := range u.Endpoints {
			address := e.Address
			if e.Host != "" {
				address = e.Host + " " + address
			}
			row(w, u.Service, address, words(e.Reason), e.Proxies)
		}
	}
	if more := int(s.UnhealthyServices) - len(s.Unhealthy); more > 0 {
		row(w, "and "+plural(more, "more service"))
	}
	silent(w, s.Silent, int(s.SilentProxies))
}

func healthTable(w io.Writer, h api.ServiceHealth) {
	if len(h.Endpoints) == 0 {
		row(w, "it has no endpoints: requests to it are answered with 503")
	} else {
		row(w, "ENDPOINT", "STATE", "WHY", "FROM")
	}
	for _, e := range h.Endpoints {
		at := net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
		if e.Address != "" {
			at += " " + e.Address
		}
		row(w, at, e.State, failing(e.Views), or(e.EndpointSet, "-"))
	}
	if !h.Checked {
		row(w, "nobody looks if they answer: the service has neither health_check nor outlier_detection")
	} else if len(h.Proxies) == 0 {
		row(w, "no connected Envoy has a route to it")
	}
	var old []api.HealthReport
	for _, p := range h.Proxies {
		if h.Checked && p.State != "current" {
			old = append(old, p)
		}
	}
	silent(w, old, len(old))
	for _, o := range h.Orders {
		row(w)
		row(w, fmt.Sprintf("ORDER FROM %s (%s)", place(o.Cloud, o.Region, o.Zone), proxies(int(o.Proxies))), "PRIORITY", "LATENCY", "STEADY")
		for _, p := range o.Places {
			now, steady := "not measured", "-"
			if p.Measured {
				now, steady = milliseconds(p.LatencyMS), milliseconds(p.SteadyLatencyMS)
			}
			row(w, place(p.Cloud, p.Region, p.Zone), p.Priority, now, steady)
		}
	}
}

// words are a reason of the API as people read it.
func words(reason string) string { return strings.ReplaceAll(reason, "_", " ") }

// failing says why an endpoint gets no requests, and where.
func failing(views []api.EndpointView) string {
	var at []string
	var why string
	for _, v := range views {
		if v.State == "unhealthy" {
			at, why = append(at, v.Proxy), or(why, words(v.Reason))
		}
	}
	switch {
	case len(at) == 0:
		return "-"
	case len(at) > 3:
		return fmt.Sprintf("%s at %d of %s", why, len(at), proxies(len(views)))
	}
	return why + " at " + strings.Join(at, ", ")
}

// place is a cloud, region and zone in a line.
func place(parts ...string) string {
	var known []string
	for _, p := range parts {
		if p != "" {
			known = append(known, p)
		}
	}
	return or(strings.Join(known, "/"), "no place")
}
