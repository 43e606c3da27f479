// Command bench-propagation measures how long a change of one route takes to be served, and until
// wait=live returns, with 100, 1,000 and 10,000 hosts configured, beside what Envoy alone needs for the
// same change (the floor), in turns, in one run. It also says what the bulk apply that sets the system up
// costs. It fails where a bar of the project is missed, unless -report is given.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/floor"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

func main() {
	sizes := flag.String("hosts", "100,1000,10000", "numbers of hosts")
	changes := flag.Int("changes", 200, "changes at each size")
	metrics := flag.Bool("metrics", true, "with the metrics filter, which each request of the measurement passes")
	report := flag.Bool("report", false, "only report: missed bars are no failure")
	flag.Parse()
	if err := run(context.Background(), *sizes, *changes, *metrics, *report); err != nil {
		fmt.Fprintln(os.Stderr, "bench-propagation:", err)
		os.Exit(1)
	}
}

type row struct {
	hosts                              int
	floor, seen, live                  []float64
	commit, bulkLive                   time.Duration
	apiMB, xdsMB, envoyMB              int
	apiCPU, xdsCPU, envoyCPU, floorCPU time.Duration
}

func run(ctx context.Context, sizes string, changes int, metrics, report bool) error {
	var rows []row
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		r, err := measure(ctx, n, changes, metrics)
		if err != nil {
			return fmt.Errorf("%d hosts: %w", n, err)
		}
		rows = append(rows, r)
		show(r, changes)
	}
	missed := bars(rows)
	for _, m := range missed {
		fmt.Println("MISSED:", m)
	}
	if len(missed) > 0 && !report {
		return errors.New("a bar was missed")
	}
	return nil
}

func show(r row, changes int) {
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(changes) }
	fmt.Printf("%6d hosts  floor p50 %.1f p99 %.1f | seen p50 %.1f p99 %.1f (%.1fx floor) | wait=live p50 %.1f p99 %.1f ms\n",
		r.hosts, pct(r.floor, .5), pct(r.floor, .99), pct(r.seen, .5), pct(r.seen, .99), pct(r.seen, .5)/pct(r.floor, .5), pct(r.live, .5), pct(r.live, .99))
	fmt.Printf("              CPU ms a change: api %.1f xds %.1f envoy %.1f (floor %.1f) | bulk: committed %v, live %v | MB: api %d xds %d envoy %d\n",
		per(r.apiCPU), per(r.xdsCPU), per(r.envoyCPU), per(r.floorCPU), r.commit.Round(time.Millisecond), r.bulkLive.Round(time.Millisecond), r.apiMB, r.xdsMB, r.envoyMB)
}

// bars are the project's: issue "One HTTP call to live traffic".
func bars(rows []row) (missed []string) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			missed = append(missed, fmt.Sprintf(format, args...))
		}
	}
	first := rows[0]
	for _, r := range rows {
		if r.hosts < 10000 {
			continue
		}
		p50, p99, f := pct(r.seen, .5), pct(r.seen, .99), pct(r.floor, .5)
		check(p50 <= 4*f, "p50 %.1f ms is over 4 times the floor's %.1f", p50, f)
		check(p50 < 15, "p50 %.1f ms is not under 15", p50)
		check(p99 < 50, "p99 %.1f ms is not under 50", p99)
		check(p50 <= 1.5*pct(first.seen, .5), "p50 %.1f ms is over 1.5 times that at %d hosts, %.1f", p50, first.hosts, pct(first.seen, .5))
		check(r.commit < 3*time.Second, "the bulk apply committed in %v, not under 3 s", r.commit)
		check(r.bulkLive < 10*time.Second, "the bulk apply was live in %v, not under 10 s", r.bulkLive)
		check(r.apiMB < 512 && r.xdsMB < 512, "memory: api %d MB, xds %d MB; not both under 512", r.apiMB, r.xdsMB)
	}
	return missed
}

func pct(v []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

func host(i int) string { return fmt.Sprintf("h%d.example.com", i) }

func spec(i int, mark string) map[string]any {
	return map[string]any{
		"hosts": []string{host(i)}, "backends": []any{map[string]any{"service": fmt.Sprintf("s%d", i/10)}},
		"response_headers": map[string]any{"set": []any{map[string]any{"name": "x-mark", "value": mark}}},
	}
}

func resources(n, port int) []map[string]any {
	var out []map[string]any
	for i := 0; i < n; i += 10 {
		out = append(out, map[string]any{"kind": "Service", "name": fmt.Sprintf("s%d", i/10), "spec": map[string]any{"endpoints": []any{map[string]any{"host": "127.0.0.1", "port": port}}}})
	}
	for i := range n {
		out = append(out, map[string]any{"kind": "Route", "name": fmt.Sprintf("r%d", i), "spec": spec(i, "0")})
	}
	return out
}

func measure(ctx context.Context, n, changes int, metrics bool) (r row, err error) {
	r.hosts = n
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer b.Close()
	port, err := strconv.Atoi(b.URL[strings.LastIndexByte(b.URL, ':')+1:])
	if err != nil {
		return r, err
	}
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "1")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if !metrics {
		spec := map[string]any{"listeners": []any{map[string]any{"name": "http", "port": s.ProxyPort}}, "metrics": false}
		if status, raw, err := s.Call(ctx, http.MethodPatch, s.API+"/v1/gateways/default?wait=live", map[string]any{"spec": spec}); err != nil || status != http.StatusOK {
			return r, fmt.Errorf("gateway: %d %s %w", status, raw, err)
		}
	}
	objects := resources(n, port)
	if err := bulk(ctx, s, objects, &r); err != nil {
		return r, err
	}
	f, err := newFloor(ctx, n, objects)
	if err != nil {
		return r, err
	}
	defer f.close()
	a := probe.New(s.Proxy)
	defer a.Close()
	// The first changes warm both sides up.
	for k := range 10 {
		if _, _, err := change(ctx, s, a, k%n, fmt.Sprintf("w%d", k)); err != nil {
			return r, err
		}
		if _, err := f.change(k%n, fmt.Sprintf("w%d", k)); err != nil {
			return r, err
		}
	}
	pids := map[string]int{"api": s.Pid("api"), "xds": s.Pid("xds"), "envoy": s.Pid("envoy")}
	c0 := [4]time.Duration{floor.CPU(pids["api"]), floor.CPU(pids["xds"]), floor.CPU(pids["envoy"]), floor.CPU(f.envoy.Pid())}
	for k := range changes {
		i := (k*7919 + 13) % n
		seen, live, err := change(ctx, s, a, i, strconv.Itoa(k+1))
		if err != nil {
			return r, err
		}
		alone, err := f.change(i, strconv.Itoa(k+1))
		if err != nil {
			return r, err
		}
		r.seen, r.live, r.floor = append(r.seen, seen), append(r.live, live), append(r.floor, alone)
	}
	r.apiCPU, r.xdsCPU = floor.CPU(pids["api"])-c0[0], floor.CPU(pids["xds"])-c0[1]
	r.envoyCPU, r.floorCPU = floor.CPU(pids["envoy"])-c0[2], floor.CPU(f.envoy.Pid())-c0[3]
	return r, nil
}

// bulk applies everything in one request, and waits until it is live.
func bulk(ctx context.Context, s *harness.System, objects []map[string]any, r *row) error {
	raw, err := json.Marshal(map[string]any{"owner": "bench", "resources": objects})
	if err != nil {
		return err
	}
	t0 := time.Now()
	status, body, err := s.Call(ctx, http.MethodPost, s.API+"/v1/apply", string(raw))
	if err != nil || status != 200 {
		return fmt.Errorf("apply: %d %.500s %w", status, body, err)
	}
	r.commit = time.Since(t0)
	status, body, err = s.Call(ctx, http.MethodPost, s.API+"/v1/apply?wait=live&timeout=60s", string(raw))
	if err != nil || status != 200 {
		return fmt.Errorf("apply and wait: %d %.500s %w", status, body, err)
	}
	r.bulkLive = time.Since(t0)
	r.apiMB, r.xdsMB, r.envoyMB = floor.RSS(s.Pid("api")), floor.RSS(s.Pid("xds")), floor.RSS(s.Pid("envoy"))
	return nil
}

func ms(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }

// until asks until the mark is seen.
func until(p *probe.Conn, name, mark string) error {
	for t0 := time.Now(); time.Since(t0) < 20*time.Second; time.Sleep(200 * time.Microsecond) {
		a, _, err := p.Get(name, "/")
		if err != nil {
			return err
		}
		if a.Status != 200 {
			return fmt.Errorf("%s answered %d during a change", name, a.Status)
		}
		if a.Header.Get("X-Mark") == mark {
			return nil
		}
	}
	return fmt.Errorf("%s does not show mark %s in 20 s", name, mark)
}

func change(ctx context.Context, s *harness.System, p *probe.Conn, i int, mark string) (seen, live float64, err error) {
	raw, err := json.Marshal(map[string]any{"spec": spec(i, mark), "owner": "bench"})
	if err != nil {
		return 0, 0, err
	}
	done := make(chan error, 1)
	t0 := time.Now()
	go func() {
		status, body, err := s.Call(ctx, http.MethodPut, fmt.Sprintf("%s/v1/routes/r%d?wait=live", s.API, i), string(raw))
		live = ms(t0)
		if err == nil && status != 200 {
			err = fmt.Errorf("put: %d %s", status, body)
		}
		done <- err
	}()
	err = until(p, host(i), mark)
	seen = ms(t0)
	return seen, live, errors.Join(err, <-done)
}

// alone is Envoy with the floor's server, holding the same resources.
type alone struct {
	server  *floor.Server
	envoy   *floor.Envoy
	builder *translate.Builder
	state   *config.State
	probe   *probe.Conn
}

func newFloor(ctx context.Context, n int, objects []map[string]any) (*alone, error) {
	ports, err := porttest.Take(2)
	if err != nil {
		return nil, err
	}
	f := &alone{state: config.New(), builder: translate.NewBuilder(resource.DefaultGateway, translate.Options{})}
	gw, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}, &configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: uint32(ports[0])}}})
	if err != nil {
		return nil, err
	}
	all := []*resource.Object{gw}
	for _, o := range objects {
		x, err := object(o["kind"].(string), o["name"].(string), o["spec"])
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	f.state.Apply(all)
	f.builder.Rebuild(f.state)
	if f.server, err = floor.NewServer(slices.Collect(f.builder.All())); err != nil {
		return nil, err
	}
	path, err := harness.EnvoyPath()
	if err != nil {
		return nil, err
	}
	if f.envoy, err = floor.StartEnvoy(ctx, path, f.server.Addr(), net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1])), 1); err != nil {
		return nil, err
	}
	f.probe = probe.New(net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])))
	for t0 := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if a, _, err := f.probe.Get(host(n-1), "/"); err == nil && a.Status == 200 {
			return f, nil
		}
		if time.Since(t0) > time.Minute {
			return nil, errors.New("the floor's Envoy does not serve")
		}
	}
}

func object(kind, name string, spec any) (*resource.Object, error) {
	k, _ := resource.KindByName(kind)
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	m, v := resource.DecodeSpec(k, raw)
	if len(v) > 0 {
		return nil, v
	}
	return resource.New(resource.Ref{Kind: kind, Name: name}, m)
}

// change sends one host's scope, marshalled beforehand, and asks until it is seen.
func (f *alone) change(i int, mark string) (float64, error) {
	o, err := object(resource.KindRoute, fmt.Sprintf("r%d", i), spec(i, mark))
	if err != nil {
		return 0, err
	}
	changes, _ := f.state.Apply([]*resource.Object{o})
	d, _ := f.builder.Update(f.state, changes)
	if len(d.Upserts) != 1 {
		return 0, fmt.Errorf("a change of one route made %d resources", len(d.Upserts))
	}
	t0 := time.Now()
	if _, err := f.server.Push(d.Upserts[0]); err != nil {
		return 0, err
	}
	err = until(f.probe, host(i), mark)
	return ms(t0), err
}

func (f *alone) close() {
	f.probe.Close()
	f.envoy.Close()
	f.server.Close()
}
