package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// What the tests ask of a system, and what they do to it.

func start(t *testing.T, args ...string) *harness.System {
	t.Helper()
	s := harness.ForTest(t, nil, args...)
	return s
}

func call(t *testing.T, s *harness.System, method, url string, body any, status int) map[string]any {
	t.Helper()
	return s.Want(t, method, url, body, status)
}

func proxied(t *testing.T, s *harness.System, host, path string) (int, string) {
	t.Helper()
	c := probe.New(s.Proxy)
	defer c.Close()
	a, _, err := c.Get(host, path)
	if err != nil {
		t.Fatal(err)
	}
	return a.Status, a.Body
}

func backend(t *testing.T, says string) (port string) {
	t.Helper()
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, says)
	}))
	t.Cleanup(b.Close)
	return b.URL[strings.LastIndexByte(b.URL, ':')+1:]
}

// backends are servers of one handler; close stops one.
func backends(t *testing.T, handlers ...http.HandlerFunc) (endpoints []any) {
	t.Helper()
	for _, h := range handlers {
		b := httptest.NewServer(h)
		t.Cleanup(b.Close)
		endpoints = append(endpoints, map[string]any{"host": "127.0.0.1", "port": b.Listener.Addr().(*net.TCPAddr).Port})
	}
	return endpoints
}

func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// statuses are those of n requests to a host.
func statuses(s *harness.System, host string, n int) map[int]int {
	out := map[int]int{}
	c := probe.New(s.Proxy)
	defer c.Close()
	for range n {
		a, _, err := c.Get(host, "/")
		if err != nil {
			a.Status = -1
		}
		out[a.Status]++
	}
	return out
}

func try(s *harness.System, host string) (string, error) {
	c := probe.New(s.Proxy)
	defer c.Close()
	a, _, err := c.Get(host, "/")
	return a.Body, err
}

func put(t *testing.T, s *harness.System, name, body string) {
	t.Helper()
	got, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/routes/"+name+"?wait=live", direct(name, body, nil))
	if err != nil || got > 201 {
		t.Fatalf("put %s: %d %s %v", name, got, raw, err)
	}
	if status, seen := proxied(t, s, name+".example.com", "/"); status != 200 || seen != body {
		t.Fatalf("%s: %d %q, want %q", name, status, seen, body)
	}
}

func route(name string) string {
	return "kind: Route\nname: " + name + "\nspec:\n  hosts: [" + name + ".example.com]\n  backends: [{service: web}]\n"
}

func direct(name, body string, more map[string]any) map[string]any {
	spec := map[string]any{
		"hosts":           []string{name + ".example.com"},
		"direct_response": map[string]any{"status": 200, "body": body},
	}
	for k, v := range more {
		spec[k] = v
	}
	return map[string]any{"kind": "Route", "name": name, "spec": spec}
}

// strict has the running Envoy refuse programs of regular expressions beyond 100 instructions.
func strict(t *testing.T, s *harness.System) {
	t.Helper()
	status, body, err := s.AdminSocket().Do(t.Context(), "POST", "/runtime_modify?re2.max_program_size.error_level=100")
	if err != nil || status != 200 {
		t.Fatalf("runtime_modify: %d %s %v", status, body, err)
	}
}

type object = map[string]any

// state is what the api says of an object.
func state(t *testing.T, s *harness.System, path string) string {
	t.Helper()
	return fmt.Sprint(call(t, s, "GET", s.API+path, nil, 200)["status"])
}

// eventually is [harness.Eventually].
func eventually(t *testing.T, complaint func() string) { t.Helper(); harness.Eventually(t, complaint) }

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// live writes a route until that is live: parts of the system are just coming back.
func live(t *testing.T, s *harness.System, name, body string) {
	t.Helper()
	eventually(t, func() string {
		got, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/routes/"+name+"?wait=live&timeout=5s", direct(name, body, nil))
		var answer struct{ Live struct{ Live bool } }
		if err != nil || got > 201 || json.Unmarshal(raw, &answer) != nil || !answer.Live.Live {
			return fmt.Sprintf("put %s: %d %s %v", name, got, raw, err) // no_proxies, for one
		}
		return ""
	})
	served(t, s, name, body)
}

// liveRoute writes the route r with wait=live.
func liveRoute(t *testing.T, s *harness.System, body, timeout string) (int, api.Live) {
	t.Helper()
	got, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/routes/r?wait=live&timeout="+timeout, direct("r", body, nil))
	var o api.Object
	if err == nil {
		err = json.Unmarshal(raw, &o)
	}
	if err != nil || o.Live == nil {
		t.Fatalf("%d %s %v", got, raw, err)
	}
	return got, *o.Live
}

// proxiesOf lists the Envoys that are known.
func proxiesOf(t *testing.T, s *harness.System) []api.Proxy {
	t.Helper()
	var list api.ProxyList
	got, raw, err := s.Call(t.Context(), "GET", s.API+"/v1/proxies", nil)
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	if err != nil || got != 200 {
		t.Fatalf("%d %s %v", got, raw, err)
	}
	return list.Items
}

func served(t *testing.T, s *harness.System, name, body string) {
	t.Helper()
	if status, seen := proxied(t, s, name+".example.com", "/"); status != 200 || seen != body {
		t.Fatalf("%s: %d %q, want %q", name, status, seen, body)
	}
}

func down(t *testing.T, s *harness.System, f func() error, parts ...string) {
	t.Helper()
	if err := s.Down(t.Context(), f, parts...); err != nil {
		t.Fatal(err)
	}
}

// again kills parts and waits until they are back.
func again(t *testing.T, s *harness.System, parts ...string) {
	t.Helper()
	for _, part := range parts {
		old := s.Pid(part)
		s.Kill(part)
		eventually(t, func() string {
			if now := s.Pid(part); now == old || now == 0 {
				return part + " does not come back"
			}
			return ""
		})
	}
	eventually(t, func() string {
		if status, _, err := s.Call(t.Context(), "GET", s.Admin+"/ready", nil); err != nil || status != 200 {
			return "the Envoy does not get ready"
		}
		return ""
	})
}

func agree(t *testing.T, s *harness.System) {
	t.Helper()
	if err := s.Doctor(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
}

// gone waits until a process does nothing any more.
func gone(t *testing.T, what string, pid int) {
	t.Helper()
	if err := harness.Await(within(t), func() bool { return !harness.Alive(pid) }); err != nil {
		t.Errorf("%s (process %d) is still there", what, pid)
	}
}

// run starts a program that is killed when the test ends.
func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
}

// answered compares an answer with the wanted one; "" where they are the same.
func answered(s *harness.System, host, token string, status int, body string) string {
	c := probe.New(s.Proxy)
	defer c.Close()
	a, _, err := c.Get(host, "/", "Authorization: Bearer "+token)
	if err != nil || a.Status != status || (body != "" && a.Body != body) {
		return fmt.Sprintf("%s answers %d %q (%v), want %d %q", host, a.Status, a.Body, err, status, body)
	}
	return ""
}

// settled asks until the answer is the wanted one.
func settled(t *testing.T, s *harness.System, host, token string, status int, body string) {
	t.Helper()
	eventually(t, func() string { return answered(s, host, token, status, body) })
}

func ask(s *harness.System, hosts []string) *traffic {
	x := &traffic{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(x.done)
		c := probe.New(s.Proxy)
		defer c.Close()
		for i := 0; ; i++ {
			select {
			case <-x.stop:
				return
			case <-time.After(time.Millisecond):
			}
			a, _, err := c.Get(hosts[i%len(hosts)], "/")
			x.mu.Lock()
			x.asked++
			switch {
			case err != nil:
				x.refused++
			case a.Status != 200:
				x.failed = append(x.failed, fmt.Sprintf("%s: %d %s", hosts[i%len(hosts)], a.Status, a.Body))
			}
			x.mu.Unlock()
		}
	}()
	return x
}

// traffic asks for hosts in turn until stopped, and remembers what was answered but 200.
type traffic struct {
	stop, done chan struct{}
	mu         sync.Mutex
	asked      int
	refused    int // connections, which a proxy that is down cannot take
	failed     []string
}

// more waits until so many more have been asked for.
func (x *traffic) more(t *testing.T, n int) {
	t.Helper()
	count := func() int { x.mu.Lock(); defer x.mu.Unlock(); return x.asked - x.refused }
	from := count()
	eventually(t, func() string {
		if count() < from+n {
			return "requests are not answered"
		}
		return ""
	})
}

// door is the part of Envoy's admin interface that dev passes, from the test: dev's own stands still while a part is
// down (harness.System.Down).
func door(t *testing.T, s *harness.System) (url string) {
	t.Helper()
	d := httptest.NewServer(envoyadmin.Door(s.AdminSocket()))
	t.Cleanup(d.Close)
	return d.URL
}

// doctor runs `marchproxy doctor` once and returns what it says; differs is its exit status 2.
func doctor(t *testing.T, s *harness.System, args ...string) (says string, differs bool) {
	t.Helper()
	url, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.CLI(t.Context(), append([]string{"doctor"}, args...)...)
	cmd.Env = append(cmd.Env, "NATS_URL="+url)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return string(out), false
	}
	if cmd.ProcessState.ExitCode() != 2 {
		t.Fatalf("doctor: %v\n%s", err, out)
	}
	return string(out), true
}

// listenerStats are Envoy's counts of what happened to its listeners.
func listenerStats(t *testing.T, s *harness.System) map[string]int {
	t.Helper()
	status, raw, err := s.Call(t.Context(), "GET", s.Admin+"/stats?filter=^listener_manager.(listener_|total_)", nil)
	if err != nil || status != 200 {
		t.Fatal(status, err)
	}
	out := map[string]int{}
	for line := range strings.Lines(string(raw)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		// Workers count a listener that they have taken over later than the change that brought it is counted.
		if !ok || err != nil || strings.HasSuffix(name, "listener_create_success") {
			continue
		}
		out[strings.TrimPrefix(name, "listener_manager.")] = n
	}
	return out
}

// counted are the request metrics of an Envoy: value by name and labels.
func counted(t *testing.T, s *harness.System) map[string]int {
	t.Helper()
	status, raw, err := s.Call(t.Context(), "GET", s.Admin+"/stats/prometheus?filter=marchproxy_req", nil)
	if err != nil || status != 200 {
		t.Fatal(status, err)
	}
	status, more, err := s.Call(t.Context(), "GET", s.Admin+"/stats/prometheus?filter=marchproxy_resp", nil)
	if err != nil || status != 200 {
		t.Fatal(status, err)
	}
	out := map[string]int{}
	for _, line := range ofMetrics.FindAllString(string(raw)+string(more), -1) {
		name, value, _ := strings.Cut(line, "} ")
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		out[name+"}"] += n // of what both engines have counted Envoy shows both
	}
	return out
}

// events is every message of both streams, with its subject and headers.
func events(t *testing.T, s *harness.System) string {
	t.Helper()
	js := s.JetStream(t)
	var all strings.Builder
	for _, name := range []string{stream.Name, status.StreamName} {
		st, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := st.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		batch, err := c.Fetch(int(st.CachedInfo().State.Msgs), jetstream.FetchMaxWait(20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			fmt.Fprintln(&all, m.Subject(), m.Headers(), string(m.Data()))
		}
	}
	return all.String()
}

func deleteStream(ctx context.Context, s *harness.System) error {
	url, err := s.NATS()
	if err != nil {
		return err
	}
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	return js.DeleteStream(ctx, stream.Name)
}

// cacheWithoutFilters shares dev's cache, except for the filters.
func cacheWithoutFilters(t *testing.T) string {
	t.Helper()
	envoy, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	shared := filepath.Dir(envoy)
	dir, err := os.MkdirTemp("", "marchproxy-cache-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })  // a leftover does no harm
	if err := os.Chmod(dir, 0o755); err != nil { // the database's user must get in
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Base(envoy), "postgres"} {
		if _, err := os.Stat(filepath.Join(shared, name)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.Symlink(filepath.Join(shared, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// terminalOf is the command line with a directory for its files.
type terminalOf struct {
	*testing.T
	s   *harness.System
	dir string
	env []string
}

// run is a call that must end with an exit code.
func (c *terminalOf) run(code int, args ...string) (out, stderr string) {
	c.Helper()
	return c.in("", code, args...)
}

func (c *terminalOf) in(stdin string, code int, args ...string) (out, stderr string) {
	c.Helper()
	cmd := c.s.CLI(c.Context(), args...)
	cmd.Dir, cmd.Stdin = c.dir, strings.NewReader(stdin)
	cmd.Env = append(cmd.Env, c.env...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		c.Fatalf("marchproxy %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, o.String(), e.String())
	}
	return o.String(), e.String()
}

func (c *terminalOf) file(name, text string) {
	c.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
}

func (c *terminalOf) says(got string, want ...string) {
	c.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			c.Errorf("lacks %q:\n%s", w, got)
		}
	}
}

func (c *terminalOf) json(args ...string) map[string]any {
	c.Helper()
	out, _ := c.run(0, append(args, "-o", "json")...)
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		c.Fatalf("%v: %v\n%s", args, err, out)
	}
	return v
}

func (c *terminalOf) text(args ...string) string {
	c.Helper()
	out, _ := c.run(0, args...)
	return out
}

func startEdge(t *testing.T, s *harness.System, env ...string) edge {
	t.Helper()
	ports, err := porttest.Take(2)
	if err != nil {
		t.Fatal(err)
	}
	envoy, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	call(t, s, "PUT", s.API+"/v1/gateways/edge", map[string]any{"spec": map[string]any{
		"listeners": []any{map[string]any{"name": "http", "port": ports[0], "address": "127.0.0.1"}}, "api_keys": keys(t, s),
		"drain_time": "90s",
	}}, 201)
	local := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	a, err := harness.StartAgent(append([]string{
		"XDS_SERVER=" + s.GRPC, "CLUSTER_API_KEY=" + key, "GATEWAY=edge", "ENVOY_PATH=" + envoy, "ENVOY_ADMIN_ADDR=" +
			local(ports[1]),
		"ENVOY_CONCURRENCY=1", "MARCHPROXY_RUN_DIR=" + t.TempDir(), "LOGLEVEL=error",
	}, env...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-a.Exited():
		default:
			_ = a.Stop(syscall.SIGKILL) // its Envoy ends with it
		}
	})
	return edge{a, local(ports[0]), "http://" + local(ports[1])}
}

// edge is a gateway of its own with an agent that supervises its Envoy.
type edge struct {
	*harness.Agent
	proxy, admin string
}
