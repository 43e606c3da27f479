// Command bench-scale measures what the system costs with very many routes: a change beside 1,000, 10,000 and 100,000
// hosts, thousands added and deleted by one apply while others write, memory, writers beside one another, two apis,
// what the parts use while nothing happens, restarts, a backup and its restore, and, where asked for, minutes of changes
// at a steady rate. It prints a table with bars, and fails where one is missed, unless -report is given.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/test/bench"
	"github.com/marchproxy/marchproxy/test/harness"
)

// parts of the measurement, in the order in which they are done: what deletes comes last.
var parts = []string{
	"change", "add", "memory", "writers", "apis", "idle", "xds", "restart", "backup", "delete", "churn",
}

type options struct {
	only       string
	hosts      int
	changes    int
	perService int
	idle       time.Duration
	churn      time.Duration
	slack      float64
	report     bool
}

func main() {
	var o options
	usual := strings.Join(parts[:len(parts)-1], ",")
	flag.StringVar(&o.only, "only", usual, "what is measured, of "+strings.Join(parts, ", "))
	flag.IntVar(&o.hosts, "hosts", 100000, "hosts at the end; changes are measured beside a hundredth and a "+
		"tenth of them, too")
	flag.IntVar(&o.changes, "changes", 200, "changes at each size")
	flag.IntVar(&o.perService, "per-service", 100, "routes that share a service; 0 for routes that answer by themselves")
	flag.DurationVar(&o.idle, "idle", time.Minute, "how long idle is measured")
	flag.DurationVar(&o.churn, "churn", 10*time.Minute, "how long churn goes on, beside a tenth of the hosts")
	flag.Float64Var(&o.slack, "slack", 1, "times may be so many times as long as their bars: above 1 on a busy machine")
	flag.BoolVar(&o.report, "report", false, "only report: missed bars are no failure")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-scale:", err)
		os.Exit(1)
	}
}

// scale is a measurement under way.
type scale struct {
	options
	*harness.System
	routes *bench.Routes
	table  bench.Table
	begun  time.Time
	loaded int
	agent  *harness.Agent
}

func run(ctx context.Context, o options) (err error) {
	for part := range strings.SplitSeq(o.only, ",") {
		if !slices.Contains(parts, part) {
			return fmt.Errorf("-only %s is not known; there are %s", part, strings.Join(parts, ", "))
		}
	}
	if o.hosts < 100 {
		return errors.New("-hosts must be at least 100")
	}
	m := &scale{options: o, begun: time.Now()}
	if m.routes, err = bench.NewRoutes(o.perService); err != nil {
		return err
	}
	defer m.routes.Close()
	if m.System, err = harness.Start(ctx, "--no-demo", "--concurrency", "1"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stopAgent(), m.Close()) }()
	err = m.measure(ctx)
	// What has been measured is worth seeing whatever came after it.
	fmt.Printf("\n%d hosts, %d routes a service, one Envoy with one worker; %v, %.0f s in all.\n", o.hosts, o.perService,
		m.begun.UTC().Format(time.DateTime), time.Since(m.begun).Seconds())
	m.table.Print(os.Stdout)
	if err == nil && len(m.table.Missed()) > 0 && !o.report {
		err = errors.New("a bar was missed")
	}
	return err
}

func (m *scale) wants(part string) bool {
	return slices.Contains(strings.Split(m.only, ","), part)
}

// say tells how far it is.
func (m *scale) say(format string, args ...any) {
	fmt.Printf("%5.0f s  %s\n", time.Since(m.begun).Seconds(), fmt.Sprintf(format, args...))
}

// grow has so many routes loaded.
func (m *scale) grow(ctx context.Context, to int) error {
	if to <= m.loaded {
		return nil
	}
	err := bench.Load(ctx, m.System, m.routes, m.loaded, to, m.say)
	m.loaded = to
	return err
}

func (m *scale) measure(ctx context.Context) error {
	if m.wants("change") {
		if err := m.change(ctx); err != nil {
			return fmt.Errorf("change: %w", err)
		}
	}
	steps := map[string]func(context.Context) error{
		"add": m.add, "memory": m.memory, "writers": m.writers, "apis": m.apis, "idle": m.rest, "xds": m.restartXDS,
		"restart": m.restart, "backup": m.backup,
		"delete": m.delete,
	}
	for _, part := range parts {
		step := steps[part]
		if step == nil || !m.wants(part) {
			continue
		}
		if part != "add" { // which has the last tenth still to come
			if err := m.grow(ctx, m.hosts); err != nil {
				return err
			}
		}
		m.say("%s", part)
		if err := step(ctx); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	if m.loaded > 0 {
		if err := m.Doctor(ctx, time.Minute); err != nil {
			return err
		}
		m.say("all parts agree")
	}
	if m.wants("churn") {
		m.say("churn")
		return m.churned(ctx)
	}
	return nil
}

// change is one change beside ever more hosts.
func (m *scale) change(ctx context.Context) error {
	var rows []bench.Beside
	for _, n := range []int{m.hosts / 100, m.hosts / 10, m.hosts} {
		if n == m.hosts && m.wants("add") { // the last tenth is measured as it comes
			if err := m.add(ctx); err != nil {
				return err
			}
		}
		if err := m.grow(ctx, n); err != nil {
			return err
		}
		m.say("changes beside %d hosts", n)
		row, err := bench.Measure(ctx, m.System, m.routes, n, m.changes)
		if err != nil {
			return fmt.Errorf("beside %d hosts: %w", n, err)
		}
		rows = append(rows, row)
	}
	m.table.Beside(rows, m.slack)
	return nil
}

// memory is that of the parts with everything loaded.
func (m *scale) memory(context.Context) error {
	api, xds := bench.PSS(m.Pid("api")), bench.PSS(m.Pid("xds"))
	m.table.Bar(fmt.Sprintf("memory (PSS), %d hosts: api", m.loaded), "< 400 MB", api < 400, "%.0f MB", api)
	m.table.Bar(fmt.Sprintf("memory (PSS), %d hosts: xds", m.loaded), "< 500 MB", xds < 500, "%.0f MB", xds)
	m.table.Note("memory (PSS) of the others", "NATS %.0f MB, Envoy %.0f MB", bench.PSS(m.Pid("nats")),
		bench.PSS(m.Pid("envoy")))
	return nil
}

// startAgent runs an agent, as a node has one, which follows the rate limit policies and guards no interface.
func (m *scale) startAgent(ctx context.Context) error {
	if m.agent != nil {
		return nil
	}
	url, err := m.NATS()
	if err != nil {
		return err
	}
	m.agent, err = harness.StartAgent([]string{"NATS_URL=" + url, "AGENT_ID=bench", "MARCHPROXY_STATE_DIR=" + m.Dir +
		"/agent", "LOGLEVEL=warn"})
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return m.agent.Ready(limit)
}

func (m *scale) stopAgent() error {
	if m.agent == nil {
		return nil
	}
	return m.agent.Stop(syscall.SIGTERM)
}
