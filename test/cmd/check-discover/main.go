// Command check-discover proves discovery with a real Docker engine (scripts/docker starts one where none answers):
// compose services come, are scaled, restarted, made sick and well, and go, while requests go to all of them. What the
// engine's events say has to be so at Envoy within two seconds, and no request may fail to a service that has a
// container which is up and was not told to end. Then the engine is stopped for a while as a process that hangs, and
// restarted where this program may.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

type options struct {
	services, rate int
	length, within time.Duration
	hang           time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.services, "services", 50, "compose services")
	flag.IntVar(&o.rate, "rate", 500, "requests a second, to all of them together")
	flag.DurationVar(&o.length, "for", 10*time.Minute, "how long services come and go")
	flag.DurationVar(&o.within, "within", 2*time.Second, "how long after the engine's event a state may "+
		"take to be at Envoy")
	flag.DurationVar(&o.hang, "hang", 15*time.Second, "how long the engine hangs; 0 for not at all")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "check-discover:", err)
		os.Exit(1)
	}
}

const (
	image   = "marchproxy-check-discover"
	project = "checkdiscover"
)

// trial is everything of a run.
type trial struct {
	options
	root, dir string
	s         *harness.System
	discover  *exec.Cmd
	state     string // URL

	mu sync.Mutex
	// up are the containers of each service that take requests: healthy, and not told to end.
	up map[string]map[string]bool
	// since is when a service last had none of them.
	since map[string]time.Time
	// expected is what has to be at Envoy, by address, and since when.
	expected map[string]expectation
	slow     []string
	slowest  time.Duration
	states   int
	sent     atomic.Int64
	failed   atomic.Int64
	examples []string
}

type expectation struct {
	cluster string
	what    string // ready, draining or gone
	at      time.Time
}

func run(ctx context.Context, o options) (err error) {
	t := &trial{
		options: o, up: map[string]map[string]bool{}, since: map[string]time.Time{},
		expected: map[string]expectation{},
	}
	if t.root, err = harness.Root(); err != nil {
		return err
	}
	if t.dir, err = os.MkdirTemp("", "check-discover-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(t.dir)) }()
	fmt.Println("starting the engine and building the backend's image")
	if err := t.prepare(ctx); err != nil {
		return err
	}
	if t.s, err = harness.Start(ctx, "--no-demo", "--concurrency", "2"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.s.Close()) }()
	defer func() { err = errors.Join(err, t.compose(context.WithoutCancel(ctx), "down", "--timeout", "3")) }()
	if err := t.begin(ctx); err != nil {
		return err
	}
	defer func() {
		_ = t.discover.Process.Signal(syscall.SIGTERM)
		_ = t.discover.Wait() // it ends by the signal
	}()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	events, err := t.events(ctx)
	if err != nil {
		return err
	}
	all.Go(func() { t.follow(events) })
	all.Go(func() { t.watch(ctx) })
	fmt.Printf("%d services come\n", o.services)
	if err := t.compose(ctx, "up", "--detach", "--wait"); err != nil {
		return err
	}
	if err := t.settle(ctx, time.Minute); err != nil {
		return err
	}
	for i := range o.services {
		all.Go(func() { t.load(ctx, i) })
	}
	if err := t.vary(ctx); err != nil {
		return err
	}
	if err := t.badLabel(ctx); err != nil {
		return err
	}
	if o.hang > 0 {
		if err := t.trouble(ctx); err != nil {
			return err
		}
	}
	if err := t.settle(ctx, time.Minute); err != nil {
		return err
	}
	return t.result()
}

func (t *trial) result() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Printf("%d states, the slowest at Envoy %s after the engine's event; %d requests, %d failed\n", t.states,
		t.slowest.Round(time.Millisecond), t.sent.Load(), t.failed.Load())
	var wrong []error
	if n := t.failed.Load(); n > 0 {
		wrong = append(wrong, fmt.Errorf("%d requests failed to services that were up: %s", n,
			strings.Join(t.examples, "; ")))
	}
	if len(t.slow) > 0 {
		wrong = append(wrong, fmt.Errorf("%d states took longer than %s: %s", len(t.slow), t.within,
			strings.Join(t.slow[:min(len(t.slow), 10)], "; ")))
	}
	return errors.Join(wrong...)
}

// command runs a program of the project's directory.
func (t *trial) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.root
	return cmd
}

func (t *trial) docker(ctx context.Context, args ...string) (string, error) {
	cmd := t.command(ctx, filepath.Join(t.root, "scripts", "docker"), args...)
	var out, says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &says
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s", strings.Join(args[:min(len(args), 4)], " "), err, says.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (t *trial) compose(ctx context.Context, args ...string) error {
	_, err := t.docker(ctx, append([]string{
		"compose", "--progress", "quiet", "-p", project, "-f",
		filepath.Join(t.dir, "compose.yaml"),
	}, args...)...)
	return err
}

func service(i int) string { return fmt.Sprintf("s%d", i) }

// cluster is the Service's name at Envoy.
func cluster(service string) string { return project + "-" + service }

// prepare makes the image and the compose file.
func (t *trial) prepare(ctx context.Context) error {
	if _, err := t.docker(ctx, "version"); err != nil {
		return err
	}
	build := t.command(ctx, "go", "build", "-trimpath", "-o", filepath.Join(t.dir, "backend"),
		"./test/cmd/check-discover/backend")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(t.dir, "Dockerfile"),
		[]byte("FROM scratch\nCOPY backend /backend\nEXPOSE 8080\nENTRYPOINT [\"/backend\"]\n"), 0o600); err != nil {
		return err
	}
	if _, err := t.docker(ctx, "build", "--quiet", "--tag", image, t.dir); err != nil {
		return err
	}
	var f strings.Builder
	f.WriteString("services:\n")
	for i := range t.services {
		t.write(&f, i, nil)
	}
	return os.WriteFile(filepath.Join(t.dir, "compose.yaml"), []byte(f.String()), 0o600)
}

// write writes a service of the compose file. Every third one has health checks.
func (t *trial) write(f *strings.Builder, i int, more map[string]string) {
	fmt.Fprintf(f, "  %s:\n    image: %s\n    stop_grace_period: 10s\n    deploy: {replicas: 2}\n    labels:\n      "+
		"marchproxy.enable: 'true'\n      marchproxy.routes.r.hosts: %s.test\n",
		service(i), image, service(i))
	for label, value := range more {
		fmt.Fprintf(f, "      %s: '%s'\n", label, value)
	}
	if i%3 == 0 {
		f.WriteString("    healthcheck: {test: [CMD, /backend, check], interval: 1s, timeout: 5s, retries: 1, " +
			"start_period: 10s, start_interval: 200ms}\n")
	}
}

// begin starts the program under test with a token that is bound.
func (t *trial) begin(ctx context.Context) error {
	status, raw, err := t.s.Call(ctx, http.MethodPost, t.s.API+"/v1/tokens", map[string]any{
		"name": "discover", "role": "editor", "bounds": map[string]any{
			"owners": []string{"discover/check"},
			"kinds":  []string{"Service", "Route", "EndpointSet"},
		},
	})
	var token struct{ Token string }
	if err != nil || status != http.StatusCreated || json.Unmarshal(raw, &token) != nil || token.Token == "" {
		return fmt.Errorf("a token: %d %s %w", status, raw, err)
	}
	ports, err := porttest.Take(1)
	if err != nil {
		return err
	}
	addr := "127.0.0.1:" + strconv.Itoa(ports[0])
	t.state = "http://" + addr + "/v1/state"
	t.discover = t.command(ctx, filepath.Join(t.root, "bin", "marchproxy-discover"))
	t.discover.Env = append(os.Environ(), "MARCHPROXY_API="+t.s.API, "MARCHPROXY_TOKEN="+token.Token,
		"DISCOVER_SITE=check", "DISCOVER_HTTP_ADDR="+addr)
	log, err := os.Create(filepath.Join(t.dir, "discover.log"))
	if err != nil {
		return err
	}
	t.discover.Stdout, t.discover.Stderr = log, log
	return t.discover.Start()
}

// event is one of the engine's, of a container of this project.
type event struct {
	Action   string
	TimeNano int64 `json:"timeNano"`
	Actor    struct {
		ID         string
		Attributes map[string]string
	}
}

func (t *trial) events(ctx context.Context) (<-chan event, error) {
	out := make(chan event, 1000)
	cmd := t.command(ctx, filepath.Join(t.root, "scripts", "docker"), "events", "--format", "{{json .}}", "--filter",
		"type=container", "--filter", "label=com.docker.compose.project="+project)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(out)
		for dec := json.NewDecoder(pipe); ; {
			var e event
			if dec.Decode(&e) != nil {
				_ = cmd.Wait() // the context ended, or the engine
				return
			}
			out <- e
		}
	}()
	return out, nil
}

// follow keeps what should be at Envoy.
func (t *trial) follow(events <-chan event) {
	addresses := map[string]string{} // by container
	for e := range events {
		s := e.Actor.Attributes["com.docker.compose.service"]
		checked := e.Actor.Attributes["image"] == image && isChecked(s)
		id := e.Actor.ID
		at := time.Unix(0, e.TimeNano)
		what := ""
		switch action, _, _ := strings.Cut(e.Action, ":"); {
		case action == "start":
			addr, err := t.docker(context.Background(), "inspect", "--format",
				"{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id)
			if err != nil || addr == "" {
				continue // it has gone meanwhile
			}
			addresses[id] = addr
			if !checked {
				what = "ready"
			}
		case e.Action == "health_status: healthy":
			what = "ready"
		case e.Action == "health_status: unhealthy", action == "die":
			what = "gone"
		case action == "kill" && slices.Contains([]string{"15", "9"}, e.Actor.Attributes["signal"]):
			what = "draining"
		}
		addr := addresses[id]
		if what == "" || addr == "" {
			continue
		}
		t.mu.Lock()
		t.expected[addr] = expectation{cluster(s), what, at}
		t.states++
		if t.up[s] == nil {
			t.up[s] = map[string]bool{}
		}
		if what == "ready" {
			t.up[s][id] = true
		} else if delete(t.up[s], id); len(t.up[s]) == 0 {
			t.since[s] = time.Now()
		}
		t.mu.Unlock()
	}
}

func isChecked(service string) bool {
	n, err := strconv.Atoi(strings.TrimPrefix(service, "s"))
	return err == nil && n%3 == 0
}

// atEnvoy is what Envoy has: ready or draining by address, by cluster.
func (t *trial) atEnvoy(ctx context.Context) (map[string]map[string]string, error) {
	status, raw, err := t.s.AdminSocket().Do(ctx, http.MethodGet, "/clusters?format=json")
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("clusters: %d %w", status, err)
	}
	var all struct {
		ClusterStatuses []struct {
			Name         string
			HostStatuses []struct {
				Address struct {
					SocketAddress struct {
						Address string `json:"address"`
					} `json:"socket_address"`
				} `json:"address"`
				HealthStatus struct {
					EDS string `json:"eds_health_status"`
				} `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	out := map[string]map[string]string{}
	for _, c := range all.ClusterStatuses {
		out[c.Name] = map[string]string{}
		for _, h := range c.HostStatuses {
			state := "ready"
			if h.HealthStatus.EDS == "DRAINING" {
				state = "draining"
			}
			out[c.Name][h.Address.SocketAddress.Address] = state
		}
	}
	return out, nil
}

// watch holds Envoy against what should be there.
func (t *trial) watch(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		has, err := t.atEnvoy(ctx)
		if err == nil {
			t.compare(has, began)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (t *trial) compare(has map[string]map[string]string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, e := range t.expected {
		state := has[e.cluster][addr]
		// A draining endpoint may be left out, and one that is gone is.
		right := state == e.what || e.what == "draining" && state == "" || e.what == "gone" && state == ""
		took := now.Sub(e.at)
		if right {
			t.slowest = max(t.slowest, took)
		}
		if took > t.within {
			t.slow = append(t.slow, fmt.Sprintf("%s %s of %s: %q after %s", addr, e.what, e.cluster, state,
				took.Round(time.Millisecond)))
		}
		if right || took > t.within {
			delete(t.expected, addr)
		}
	}
}

// settle waits until nothing is outstanding.
func (t *trial) settle(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return harness.Await(ctx, func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.expected) == 0
	})
}

// load sends requests to a service, and counts those that fail while it is up, and has been for a while.
func (t *trial) load(ctx context.Context, i int) {
	c := probe.New(t.s.Proxy)
	defer c.Close()
	s := service(i)
	tick := time.NewTicker(time.Second * time.Duration(t.services) / time.Duration(t.rate))
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		began := time.Now()
		up := t.isUp(s, began)
		a, _, err := c.Get(s+".test", "/")
		if !up || !t.isUp(s, began) {
			continue
		}
		t.sent.Add(1)
		if err != nil || a.Status != http.StatusOK {
			t.failed.Add(1)
			t.mu.Lock()
			if len(t.examples) < 10 {
				t.examples = append(t.examples, fmt.Sprintf("%s %s: %d %.80s %v", began.Format("15:04:05.000"), s, a.Status,
					a.Body, err))
			}
			t.mu.Unlock()
		}
	}
}

// isUp says whether a service has had a container that takes requests all the time since a while before a moment.
func (t *trial) isUp(s string, at time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.up[s]) > 0 && at.Sub(t.since[s]) > t.within && len(t.expected) == 0 || len(t.up[s]) > 0 &&
		at.Sub(t.since[s]) > 2*t.within
}

// vary has services change for the length of the run.
func (t *trial) vary(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(15, 4))
	end := time.Now().Add(t.length)
	said := time.Now()
	for n := 0; time.Now().Before(end); n++ {
		i := rng.IntN(t.services)
		s := service(i)
		var err error
		switch n % 6 {
		case 0:
			err = t.compose(ctx, "up", "--detach", "--no-recreate", "--scale", s+"=4", s)
		case 1:
			err = t.compose(ctx, "up", "--detach", "--no-recreate", "--scale", s+"=2", s)
		case 2: // one of its containers
			err = t.one(ctx, s, "restart")
		case 3:
			i -= i % 3
			err = t.sick(ctx, service(i))
		case 4:
			if err = t.compose(ctx, "rm", "--stop", "--force", s); err == nil {
				err = t.compose(ctx, "up", "--detach", "--no-recreate", s)
			}
		case 5: // killed, and started again
			if err = t.one(ctx, s, "kill"); err == nil {
				err = t.compose(ctx, "up", "--detach", "--no-recreate", s)
			}
		}
		if err != nil {
			return err
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			t.mu.Lock()
			fmt.Printf("%s left: %d changes, %d states, slowest %s, %d requests, %d failed\n",
				time.Until(end).Round(time.Second), n, t.states, t.slowest.Round(time.Millisecond), t.sent.Load(), t.failed.Load())
			t.mu.Unlock()
		}
	}
	return nil
}

// containers are those of a service that run.
func (t *trial) containers(ctx context.Context, s string) ([]string, error) {
	out, err := t.docker(ctx, "ps", "--quiet", "--no-trunc", "--filter", "label=com.docker.compose.project="+project,
		"--filter", "label=com.docker.compose.service="+s)
	return strings.Fields(out), err
}

func (t *trial) one(ctx context.Context, s, do string) error {
	all, err := t.containers(ctx, s)
	if err != nil || len(all) == 0 {
		return err
	}
	_, err = t.docker(ctx, do, all[0])
	return err
}

// sick has one container of a service fail its checks, and pass them again.
func (t *trial) sick(ctx context.Context, s string) error {
	all, err := t.containers(ctx, s)
	if err != nil || len(all) < 2 {
		return err
	}
	addr, err := t.docker(ctx, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", all[0])
	if err != nil || addr == "" {
		return err
	}
	for _, path := range []string{"/sick", "/well"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+":8080"+path, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		_ = resp.Body.Close()
		want := map[string]string{"/sick": "unhealthy", "/well": "healthy"}[path]
		limit, cancel := context.WithTimeout(ctx, time.Minute)
		err = harness.Await(limit, func() bool {
			got, err := t.docker(limit, "inspect", "--format", "{{.State.Health.Status}}", all[0])
			return err != nil || got == want
		})
		cancel()
		if err != nil {
			return fmt.Errorf("a container of %s does not become %s: %w", s, want, err)
		}
	}
	return nil
}

// badLabel gives a service a label that is wrong: it is said, its other route is served, and no other service notices.
func (t *trial) badLabel(ctx context.Context) error {
	fmt.Println("a label that is wrong")
	var f strings.Builder
	f.WriteString("services:\n")
	t.write(&f, t.services, map[string]string{
		"marchproxy.routes.bad.paht.prefix": "/",
		"marchproxy.routes.bad.hosts":       "bad.test",
	})
	path := filepath.Join(t.dir, "bad.yaml")
	if err := os.WriteFile(path, []byte(f.String()), 0o600); err != nil {
		return err
	}
	if _, err := t.docker(ctx, "compose", "--progress", "quiet", "-p", project+"-bad", "-f", path, "up",
		"--detach"); err != nil {
		return err
	}
	defer func() {
		_, _ = t.docker(ctx, "compose", "--progress", "quiet", "-p", project+"-bad", "-f", path, "down", "--timeout", "1")
	}()
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c := probe.New(t.s.Proxy)
	defer c.Close()
	if err := harness.Await(limit, func() bool {
		a, _, err := c.Get(service(t.services)+".test", "/")
		return err == nil && a.Status == http.StatusOK
	}); err != nil {
		return fmt.Errorf("beside a route with a bad label the other one is not served: %w", err)
	}
	said, err := t.problems(ctx)
	if err != nil || !strings.Contains(said, "marchproxy.routes.bad.paht.prefix") {
		return fmt.Errorf("the bad label is not said: %s %w", said, err)
	}
	return nil
}

// problems are those that the program under test tells of.
func (t *trial) problems(ctx context.Context) (string, error) {
	status, raw, err := t.s.Call(ctx, http.MethodGet, t.state, nil)
	if err != nil || status != http.StatusOK {
		return "", fmt.Errorf("%s: %d %w", t.state, status, err)
	}
	var st struct{ Problems map[string][]string }
	err = json.Unmarshal(raw, &st)
	return fmt.Sprint(st.Problems), err
}

// trouble has the engine hang for a while, as a process that is stopped does. Its containers go on, and so must
// requests.
func (t *trial) trouble(ctx context.Context) error {
	raw, err := os.ReadFile("/var/run/docker.pid")
	if state := os.Getenv("MARCHPROXY_ENGINE_DIR"); err != nil {
		if state == "" {
			state = "/var/tmp/marchproxy-engine"
		}
		raw, err = os.ReadFile(filepath.Join(state, "dockerd.pid"))
	}
	if err != nil {
		return fmt.Errorf("the engine's process is not known, so that it cannot be made to hang; -hang 0 leaves that out: %w",
			err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return err
	}
	fmt.Printf("the engine hangs for %s\n", t.hang)
	before := t.failed.Load()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	select {
	case <-time.After(t.hang): // that is the trouble
	case <-ctx.Done():
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		return err
	}
	if n := t.failed.Load() - before; n > 0 {
		return fmt.Errorf("%d requests failed while the engine was stopped: %s", n, strings.Join(t.examples, "; "))
	}
	// What happens right after is seen again.
	return t.compose(ctx, "up", "--detach", "--no-recreate", "--scale", service(1)+"=3", service(1))
}
