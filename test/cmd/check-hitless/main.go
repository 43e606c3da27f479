// Command check-hitless proves that no change costs a request: while 500 requests a second go through the
// proxy, services are created, renamed, moved to other endpoints and deleted, routes re-pointed, and the
// gateway's listeners and rate limits changed, services with DNS names and with active health checks among
// them. No request may fail, and none may reach another host's backend. Then certificates are added, rotated and
// removed, and access log, its sinks, limits, client_auth and tracing changed: no WebSocket, download or HTTP/2 connection may be
// cut, and what drains must have been named by the dry run.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/collector"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

func main() {
	rounds := flag.Int("rounds", 500, "rounds of changes, each with a change of the gateway")
	rate := flag.Int("rate", 500, "requests a second")
	o := options{}
	flag.IntVar(&o.certificates, "certificates", 200, "certificates that are added, rotated and removed")
	flag.IntVar(&o.changes, "changes", 100, "changes of each other kind of the gateway")
	flag.IntVar(&o.websockets, "websockets", 50, "WebSockets that are open")
	flag.IntVar(&o.http2, "http2", 50, "HTTP/2 connections that are open")
	flag.IntVar(&o.downloads, "downloads", 20, "slow downloads that are under way")
	flag.Parse()
	o.rounds, o.rate = *rounds, *rate
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "check-hitless:", err)
		os.Exit(1)
	}
}

type options struct{ rounds, rate, certificates, changes, websockets, http2, downloads int }

const hosts = 20

// site is one host with its two backends, which both say its number.
type site struct {
	i     int
	ports [2]int
	// name and port of its service at present.
	generation, port int
}

func (s *site) host() string    { return fmt.Sprintf("site%d.example.com", s.i) }
func (s *site) service() string { return fmt.Sprintf("site%d-%d", s.i, s.generation) }

// document is everything of a site, as one owner's apply.
func (s *site) document() map[string]any {
	address := "127.0.0.1"
	if s.i%4 == 1 {
		address = "localhost" // by DNS
	}
	spec := map[string]any{"endpoints": []any{map[string]any{"host": address, "port": s.ports[s.port]}}}
	if s.i%4 == 2 {
		spec["health_check"] = map[string]any{"http": map[string]any{"path": "/health"}, "interval": "1s", "timeout": "1s"}
	}
	return map[string]any{"owner": fmt.Sprintf("site%d", s.i), "prune": true, "resources": []any{
		map[string]any{"kind": "Service", "name": s.service(), "spec": spec},
		map[string]any{"kind": "Route", "name": fmt.Sprintf("site%d", s.i), "spec": map[string]any{
			"hosts": []string{s.host()}, "backends": []any{map[string]any{"service": s.service()}},
		}},
	}}
}

type counts struct {
	sent, failed, wrong, reused atomic.Int64
	mu                          sync.Mutex
	examples                    []string
}

func (c *counts) example(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.examples) < 20 {
		c.examples = append(c.examples, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

func run(ctx context.Context, o options) (err error) {
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "2")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	sites := make([]*site, hosts)
	for i := range sites {
		sites[i] = &site{i: i}
		for b := range sites[i].ports {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, strconv.Itoa(i))
			}))
			defer server.Close()
			if sites[i].ports[b], err = strconv.Atoi(server.URL[strings.LastIndexByte(server.URL, ':')+1:]); err != nil {
				return err
			}
		}
		if err := call(ctx, s, http.MethodPost, "/v1/apply?wait=live", sites[i].document()); err != nil {
			return err
		}
	}
	server := httptest.NewServer(http.HandlerFunc(backend))
	defer server.Close()
	logs, err := collector.Start(ctx, nil)
	if err != nil {
		return err
	}
	defer logs.Stop()
	g, l, err := prepare(ctx, s, server.URL, logs)
	if err != nil {
		return err
	}
	var c counts
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	if err := l.open(load, &wg, o.websockets, o.http2, o.downloads); err != nil {
		return fmt.Errorf("open connections: %w", err)
	}
	const clients = 10
	for n := range clients {
		wg.Go(func() { client(load, s.Proxy, n, time.Second*clients/time.Duration(o.rate), &c) })
	}
	envoy := s.Pid("envoy")
	t0 := time.Now()
	if err = g.vary(ctx, l, o.certificates, o.changes); err == nil {
		err = changes(ctx, g, sites, o.rounds)
	}
	took := time.Since(t0)
	stop()
	wg.Wait()
	err = errors.Join(err, l.report())
	otlp, grpc := len(logs.OTLP("")), len(logs.GRPC(""))
	fmt.Printf("access log: %d entries by OTLP, %d by ALS\n", otlp, grpc)
	if err == nil && (otlp == 0 || grpc == 0) {
		err = errors.New("a sink that was switched on has sent nothing")
	}
	if s.Pid("envoy") != envoy {
		log, logErr := os.ReadFile(filepath.Join(s.Dir, "log", "envoy.log"))
		err = errors.Join(err, fmt.Errorf("envoy has ended; the end of its log:\n%s", log[max(0, len(log)-8000):]), logErr)
	}
	fmt.Printf("%d rounds of changes in %v; %d requests (%.0f/s): %d failed (%d of them on a connection used before), "+
		"%d from a wrong backend\n",
		o.rounds, took.Round(time.Second), c.sent.Load(), float64(c.sent.Load())/took.Seconds(), c.failed.Load(),
		c.reused.Load(), c.wrong.Load())
	for _, e := range c.examples {
		fmt.Println(" ", e)
	}
	if c.failed.Load()+c.wrong.Load() > 0 {
		err = errors.Join(err, errors.New("requests failed"))
	}
	return err
}

func call(ctx context.Context, s *harness.System, method, path string, body any) error {
	status, raw, err := s.Call(ctx, method, s.API+path, body)
	if err != nil {
		return err
	}
	if status != 200 && status != 201 {
		return fmt.Errorf("%s %s: %d %s", method, path, status, raw)
	}
	return nil
}

// prepare has the listeners and the routes of what lasts, and an Envoy whose drain time is longer than the check.
func prepare(
	ctx context.Context, s *harness.System, backend string, logs *collector.Collector,
) (*gateway, *lasting, error) {
	free, err := porttest.Take(1)
	if err != nil {
		return nil, nil, err
	}
	g := &gateway{s: s, http: s.ProxyPort, https: free[0], certificates: []string{"main"}}
	if g.authority, err = authority.New("check-hitless", lasts); err != nil {
		return nil, nil, err
	}
	main, err := certificate(g.authority, "main", lastingHost)
	if err != nil {
		return nil, nil, err
	}
	g.apiKeys = []any{object{"name": "bootstrap"}} // the one that is stored
	port, err := strconv.Atoi(backend[strings.LastIndexByte(backend, ':')+1:])
	if err != nil {
		return nil, nil, err
	}
	one := func(port int) []any { return []any{object{"host": "127.0.0.1", "port": port}} }
	if _, err := g.put(ctx, main, object{"kind": "Certificate", "name": "ca", "spec": object{"chain": g.authority.PEM}},
		object{"kind": "Service", "name": "collector", "spec": object{"protocol": "grpc", "endpoints": one(9)}},
		object{"kind": "Service", "name": "logs-0", "spec": object{"protocol": "grpc", "endpoints": one(logs.Port)}},
		object{"kind": "Service", "name": "logs-1", "spec": object{"protocol": "grpc", "endpoints": one(logs.Port)}},
		object{"kind": "Service", "name": "lasting", "spec": object{"endpoints": one(port)}},
		object{"kind": "Route", "name": "lasting", "spec": object{
			"hosts": []string{lastingHost}, "backends": []any{object{"service": "lasting"}}, "websocket": true, "timeout": "0s",
		}}); err != nil {
		return nil, nil, err
	}
	if err := restartEnvoy(ctx, s); err != nil { // it takes the drain time when it starts
		return nil, nil, err
	}
	l := &lasting{plain: s.Proxy, secure: net.JoinHostPort("127.0.0.1", strconv.Itoa(g.https)), roots: x509.NewCertPool()}
	l.roots.AddCert(g.authority.Cert)
	return g, l, nil
}

// restartEnvoy kills Envoy, and returns when the one that dev starts in its place serves.
func restartEnvoy(ctx context.Context, s *harness.System) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	old := s.Pid("envoy")
	s.Kill("envoy")
	for {
		if now := s.Pid("envoy"); now != old && now != 0 {
			if status, _, err := s.Call(ctx, http.MethodGet, s.Admin+"/ready", nil); err == nil && status == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("envoy does not come back: %w", ctx.Err())
		}
	}
}

// report says what became of what lasts.
func (l *lasting) report() error {
	var err error
	for name, c := range map[string]*counter{
		"WebSockets": &l.websockets, "downloads": &l.downloads,
		"HTTP/2": &l.answers,
	} {
		fmt.Printf("%s: %d echoes, pieces or answers, %d cut or failed\n", name, c.good.Load(), c.bad.Load())
		for _, e := range c.examples {
			fmt.Println(" ", e)
		}
		if c.bad.Load() > 0 {
			err = errors.Join(err, fmt.Errorf("%s were cut or failed", name))
		}
	}
	return err
}

func changes(ctx context.Context, g *gateway, sites []*site, rounds int) error {
	s := g.s
	free, err := porttest.Take(1)
	if err != nil {
		return err
	}
	second := free[0]
	for k := range rounds {
		x := sites[k%len(sites)]
		switch k / len(sites) % 3 {
		case 0: // another name: created, route re-pointed, the old one deleted, in one transaction
			x.generation++
		case 1: // other endpoints
			x.port = 1 - x.port
		default: // both
			x.generation++
			x.port = 1 - x.port
		}
		wait := ""
		if k%2 == 0 {
			wait = "?wait=live"
		}
		if err := call(ctx, s, http.MethodPost, "/v1/apply"+wait, x.document()); err != nil {
			return fmt.Errorf("round %d: %w", k, err)
		}
		g.second = 0
		if k%5 < 2 { // a second one comes and goes, with every host's table
			g.second = second
		}
		g.limits = object{"max_request_headers_kb": 60 + k%2}
		if err := call(ctx, s, http.MethodPut, "/v1/gateways/default"+wait, map[string]any{"spec": g.spec()}); err != nil {
			return fmt.Errorf("round %d: gateway: %w", k, err)
		}
		if err := limit(ctx, s, k, wait); err != nil {
			return fmt.Errorf("round %d: limit: %w", k, err)
		}
	}
	return nil
}

// limit has a rate limit that nobody exceeds come, change and go.
func limit(ctx context.Context, s *harness.System, k int, wait string) error {
	const path = "/v1/rate-limit-policies/fair"
	if k%10 == 9 {
		return call(ctx, s, http.MethodDelete, path+wait, nil)
	}
	return call(ctx, s, http.MethodPut, path+wait,
		map[string]any{"spec": map[string]any{"requests_per_second": 100000 + k}})
}

// client sends a request every pause: nine on one connection, then one on a new one.
func client(ctx context.Context, addr string, n int, pause time.Duration, c *counts) {
	kept := probe.New(addr)
	defer kept.Close()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for k := n; ; k++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		i := k % hosts
		p := kept
		if k%10 == 0 {
			p = probe.New(addr)
		} else {
			kept.Idle() // as an ordinary client: has it been closed meanwhile?
		}
		a, reused, err := p.Get(fmt.Sprintf("site%d.example.com", i), "/")
		if p != kept {
			p.Close()
		}
		c.sent.Add(1)
		switch {
		case err != nil:
			c.failed.Add(1)
			if reused {
				c.reused.Add(1)
			}
			c.example("site%d: %v (reused %t)", i, err, reused)
		case a.Status != 200:
			c.failed.Add(1)
			c.example("site%d: %d %q", i, a.Status, a.Body)
		case a.Body != strconv.Itoa(i):
			c.wrong.Add(1)
			c.example("site%d: answered by %q", i, a.Body)
		}
	}
}
