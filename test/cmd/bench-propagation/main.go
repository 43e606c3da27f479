// Command bench-propagation measures how long a change of one route takes until wait=live returns and until it is
// served, with 100, 1,000 and 10,000 hosts configured, each in a system of its own, beside what Envoy alone needs for
// the same change (the floor), in turns, in one run. It also says what the bulk apply that sets the system up costs.
// It fails where a bar of the project is missed, unless -report is given. What needs more hosts is bench-scale.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/bench"
	"github.com/marchproxy/marchproxy/test/harness"
)

func main() {
	sizes := flag.String("hosts", "100,1000,10000", "numbers of hosts")
	changes := flag.Int("changes", 200, "changes at each size")
	perService := flag.Int("per-service", 10, "routes that share a service; 0 for routes that answer by themselves")
	metrics := flag.Bool("metrics", true, "with the gateway's metrics, which each request of the "+
		"measurement is counted in")
	report := flag.Bool("report", false, "only report: missed bars are no failure")
	flag.Parse()
	if err := run(context.Background(), *sizes, *changes, *perService, *metrics, *report); err != nil {
		fmt.Fprintln(os.Stderr, "bench-propagation:", err)
		os.Exit(1)
	}
}

// bulk is what the apply of everything costs.
type bulk struct {
	hosts           int
	stored, live    time.Duration
	api, xds, envoy float64 // MB
}

func run(ctx context.Context, sizes string, changes, perService int, metrics, report bool) error {
	routes, err := bench.NewRoutes(perService)
	if err != nil {
		return err
	}
	defer routes.Close()
	var rows []bench.Beside
	var table bench.Table
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		row, all, err := measure(ctx, routes, n, changes, metrics)
		if err != nil {
			return fmt.Errorf("%d hosts: %w", n, err)
		}
		fmt.Printf("%d hosts: wait=live p50 %.1f ms, floor %.1f\n", n, bench.Pct(row.Live, .5), bench.Pct(row.Floor, .5))
		rows = append(rows, row)
		all.show(&table)
	}
	table.Beside(rows, 1)
	table.Print(os.Stdout)
	if len(table.Missed()) > 0 && !report {
		return errors.New("a bar was missed")
	}
	return nil
}

func (b bulk) show(t *bench.Table) {
	what := fmt.Sprintf("%d routes and their services in one apply", b.hosts)
	times := fmt.Sprintf("stored in %.2f s, live in %.2f s", b.stored.Seconds(), b.live.Seconds())
	memory := fmt.Sprintf("api %.0f MB, xds %.0f, Envoy %.0f", b.api, b.xds, b.envoy)
	if b.hosts != 10000 {
		t.Note(what, "%s; %s", times, memory)
		return
	}
	t.Bar(what, "stored < 3 s, live < 10 s", b.stored < 3*time.Second && b.live < 10*time.Second, "%s", times)
	t.Bar("memory (PSS) then", "api and xds < 512 MB each", b.api < 512 && b.xds < 512, "%s", memory)
}

func measure(
	ctx context.Context, routes *bench.Routes, n, changes int, metrics bool,
) (row bench.Beside, b bulk, err error) {
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "1")
	if err != nil {
		return row, b, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if !metrics {
		spec := map[string]any{"listeners": []any{map[string]any{"name": "http", "port": s.ProxyPort}}, "metrics": false}
		if status, raw, err := s.Call(ctx, http.MethodPatch, s.API+"/v1/gateways/default?wait=live",
			map[string]any{"spec": spec}); err != nil || status != http.StatusOK {
			return row, b, errors.Join(fmt.Errorf("gateway: %d %s", status, raw), err)
		}
	}
	b.hosts = n
	if b.stored, b.live, err = bench.Apply(ctx, s, map[string]any{
		"owner":     bench.Owner,
		"resources": routes.Documents(0, n),
	}); err != nil {
		return row, b, err
	}
	b.api, b.xds, b.envoy = bench.PSS(s.Pid("api")), bench.PSS(s.Pid("xds")), bench.PSS(s.Pid("envoy"))
	row, err = bench.Measure(ctx, s, routes, n, changes)
	return row, b, err
}
