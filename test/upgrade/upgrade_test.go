package upgrade

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
)

var full = flag.Bool("full", false, "each order that docs/upgrade.md allows, both ways; otherwise the usual order alone")

// trials are the orders in which docs/upgrade.md lets the parts be replaced, by the next release and back by the last one.
var trials = []struct {
	name  string
	back  bool
	usual bool // tried in each run
	parts []string
}{
	{"api, xds, agents", false, true, []string{"api-1", "api-2", "xds-1", "xds-2", "agent-1", "agent-2"}},
	{"back agents, xds, api", true, true, []string{"agent-2", "agent-1", "xds-2", "xds-1", "api-2", "api-1"}},
	{"xds, api, agents", false, false, []string{"xds-1", "xds-2", "api-1", "api-2", "agent-1", "agent-2"}},
	{"back agents, api, xds", true, false, []string{"agent-2", "agent-1", "api-2", "api-1", "xds-2", "xds-1"}},
	{"agents, xds, api", false, false, []string{"agent-1", "agent-2", "xds-1", "xds-2", "api-1", "api-2"}},
	{"back api, xds, agents", true, false, []string{"api-2", "api-1", "xds-2", "xds-1", "agent-2", "agent-1"}},
	// Half of everything is of each release for as long as one likes: a machine after another, or a trial of the new one.
	{"one of each, then the others", false, false, []string{"api-1", "xds-1", "agent-1", "agent-2", "xds-2", "api-2"}},
	{"back one of each, then the others", true, false, []string{"api-1", "xds-1", "agent-1", "agent-2", "xds-2", "api-2"}},
}

// TestUpgrade: the last release is replaced by this one, and this one by the last one after such an upgrade, a process
// after another, while requests and writes go on: no request fails, no acknowledged write is lost, and all have the newest
// configuration after each step.
func TestUpgrade(t *testing.T) {
	for _, o := range trials {
		if !o.usual && !*full {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			s := start(t)
			s.run(s.old, "api-1", "api-2", "xds-1", "xds-2")
			_, port, _ := net.SplitHostPort(s.gateways[1].proxy)
			s.put("gateways/second", `{"spec":{"listeners":[{"name":"http","port":`+port+`}],"api_keys":[{"name":"k","key":"`+
				clusterKey+`"}]}}`)
			l := begin(t, s)
			s.run(s.old, "agent-1", "agent-2")
			saved, to := filepath.Join(t.TempDir(), "saved"), []release{s.now}
			if o.back {
				s.install(s.now)
				s.run(s.now, "api-1", "api-2", "xds-1", "xds-2", "agent-1", "agent-2")
				to = []release{s.old, s.now} // and once more
			}
			l.run(t)
			l.pause(t, "before the first")
			s.command("marchproxy-api", "backup", saved)
			if !o.back {
				s.install(s.now)
			}
			for _, r := range to {
				for _, p := range o.parts {
					s.run(r, p)
					l.pause(t, p+" of the "+r.name+" release")
				}
			}
			l.end(t)
			s.command("marchproxy-api", "restore", "-check", saved)
		})
	}
}

// command runs a program of this release beside the apis, with their environment.
func (s *system) command(program string, args ...string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(s.now.bin, program), args...)
	cmd.Env = s.parts["api-1"].env
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// load is requests to the proxies that are ready, as a load balancer sends them, and writes to the apis that are.
type load struct {
	s    *system
	stop context.CancelFunc
	wg   sync.WaitGroup

	ready                     [2]atomic.Bool
	requests, failed, nowhere atomic.Int64
	writes, again             atomic.Int64

	mu    sync.Mutex
	acked map[string]string
	first string // the first failure
}

// routes that are written again and again.
const routes = 8

func begin(t *testing.T, s *system) *load {
	t.Helper()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "backend") // the client is gone: nobody is left to tell
	}))
	t.Cleanup(backend.Close)
	_, port, _ := net.SplitHostPort(backend.Listener.Addr().String())
	s.put("services/backend", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+port+`}]}}`)
	s.put("routes/steady", `{"spec":{"hosts":["steady.example.com"],"gateways":["default","second"],"backends":[{"service":"backend"}]}}`)
	return &load{s: s, acked: map[string]string{}}
}

// run starts it.
func (l *load) run(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	for i, g := range l.s.gateways {
		l.ready[i].Store(true)
		l.wg.Go(func() {
			for each(ctx, 20*time.Millisecond) {
				l.ready[i].Store(g.agent.isReady(ctx))
			}
		})
	}
	for k := range 4 {
		l.wg.Go(func() {
			for n := k; each(ctx, 20*time.Millisecond); n++ {
				l.request(ctx, n)
			}
		})
	}
	l.wg.Go(func() {
		for n := 1; each(ctx, 200*time.Millisecond); n++ {
			l.write(ctx, n)
		}
	})
}

func each(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *load) request(ctx context.Context, n int) {
	at := n % 2
	if !l.ready[at].Load() {
		at = 1 - at
	}
	if !l.ready[at].Load() {
		l.nowhere.Add(1)
		return
	}
	body, err := get(ctx, l.s.gateways[at].proxy, "steady.example.com")
	if ctx.Err() != nil {
		return
	}
	if l.requests.Add(1); err != nil || body != "backend" {
		l.failed.Add(1)
		l.note(fmt.Sprintf("%s: %q %v", l.s.gateways[at].name, body, err))
	}
}

func (l *load) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == "" {
		l.first = what
	}
}

func get(ctx context.Context, proxy, host string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+proxy+"/", nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	raw, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, raw)
	}
	return string(raw), err
}

// write puts a route, at the other api where one does not answer: a PUT may be sent again. One that has begun goes on when
// the load is stopped: what it stored would otherwise have been acknowledged to nobody.
func (l *load) write(ctx context.Context, n int) {
	ctx = context.WithoutCancel(ctx)
	name, body := fmt.Sprint("w", n%routes), fmt.Sprint(n)
	doc := fmt.Sprintf(`{"spec":{"hosts":["%s.example.com"],"gateways":["default","second"],"direct_response":{"status":200,"body":"%s"}}}`,
		name, body)
	for try := range 40 {
		code, raw, err := ask(ctx, http.MethodPut, l.s.apis[(n+try)%2]+"/v1/routes/"+name, doc)
		if err == nil && code < 300 {
			l.writes.Add(1)
			l.mu.Lock()
			l.acked[name] = body
			l.mu.Unlock()
			return
		}
		if err == nil && code != http.StatusServiceUnavailable {
			l.s.t.Errorf("a write is refused: %d %s", code, raw)
			return
		}
		l.again.Add(1)
		each(ctx, 100*time.Millisecond)
	}
	l.s.t.Error("no api takes a write for four seconds")
}

// pause lets the load go on for a while, and looks at what it has seen.
func (l *load) pause(t *testing.T, step string) {
	t.Helper()
	l.s.agree()
	each(t.Context(), 500*time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first != "" || l.nowhere.Load() > 0 {
		t.Fatalf("%s: %d of %d requests failed, %d had nowhere to go; the first: %s", step, l.failed.Load(), l.requests.Load(),
			l.nowhere.Load(), l.first)
	}
}

// end stops the load, and looks whether every acknowledged write is stored and served.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.wg.Wait()
	l.s.agree()
	for name, body := range l.acked {
		code, raw, err := ask(t.Context(), http.MethodGet, l.s.apis[1]+"/v1/routes/"+name, "")
		if err != nil || code != 200 || !strings.Contains(string(raw), `"body":"`+body+`"`) {
			t.Errorf("%s is not stored as it was acknowledged (%s): %d %s %v", name, body, code, raw, err)
		}
		for _, g := range l.s.gateways {
			if served, err := get(t.Context(), g.proxy, name+".example.com"); err != nil || served != body {
				t.Errorf("%s is served by %s as %q %v, want %q", name, g.name, served, err, body)
			}
		}
	}
	var revisions api.RevisionList
	code, raw, err := ask(t.Context(), http.MethodGet, l.s.apis[0]+"/v1/revisions?limit=1000", "")
	if err != nil || code != 200 || json.Unmarshal(raw, &revisions) != nil {
		t.Fatalf("revisions: %d %v", code, err)
	}
	for i := 1; i < len(revisions.Items); i++ {
		if revisions.Items[i-1].Revision != revisions.Items[i].Revision+1 {
			t.Errorf("a revision is missing before %d", revisions.Items[i-1].Revision)
		}
	}
	if l.requests.Load() == 0 || l.writes.Load() == 0 {
		t.Error("there was no load")
	}
	t.Logf("%d requests, %d failed; %d writes acknowledged, %d sent again to the other api", l.requests.Load(), l.failed.Load(),
		l.writes.Load(), l.again.Load())
}
