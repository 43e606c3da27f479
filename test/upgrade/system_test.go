package upgrade

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

const (
	token      = "a-token-that-is-long-enough-for-its-role-in-a-test"
	secretKey  = "a-key-that-seals-in-a-test"
	clusterKey = "a-key-of-a-gateway-in-a-test"
	// farewell is how long a program may take to end when it is asked to.
	farewell = 30 * time.Second
)

// release is where programs are, and the filters that go with them.
type release struct{ name, bin, filters string }

// part is a process that can be of one release or the other.
type part struct {
	name, program string
	env           []string
	// ready is asked until it answers 200.
	ready string

	mu  sync.Mutex
	of  release
	cmd *exec.Cmd
	log *bytes.Buffer
}

// gateway is what one Envoy serves, of one agent.
type gateway struct {
	name, proxy string
	agent       *part
}

// system is two of everything but PostgreSQL and NATS, which are of no release.
type system struct {
	t        *testing.T
	old, now release
	envoy    map[string]string
	wasm     string
	apis     []string // URLs
	gateways []gateway
	parts    map[string]*part
}

func start(t *testing.T) *system {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", "previous"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal("the last release cannot be built: ", err)
	}
	previous := strings.TrimSpace(string(out))
	s := &system{
		t: t, wasm: t.TempDir(), parts: map[string]*part{}, envoy: map[string]string{},
		old: release{"old", filepath.Join(previous, "bin"), filepath.Join(previous, "wasm-filters", "dist")},
		now: release{"new", filepath.Dir(harness.ProgramForTest(t, "marchproxy")), filepath.Join(root, "wasm-filters", "dist")},
	}
	for _, r := range []release{s.old, s.now} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(r.bin, "marchproxy"), "dev", "envoy-path", "--fetched").Output()
		if err != nil {
			t.Fatalf("the Envoy of the %s release: %v", r.name, err)
		}
		s.envoy[r.name] = strings.TrimSpace(string(out))
	}
	s.install(s.old)
	nats, database := natstest.Start(t), s.database()
	ports, err := porttest.Take(14)
	if err != nil {
		t.Fatal(err)
	}
	next := func() (addr string) {
		addr = net.JoinHostPort("127.0.0.1", fmt.Sprint(ports[0]))
		ports = ports[1:]
		return addr
	}
	proxies := []string{next(), next()}
	_, defaultPort, _ := net.SplitHostPort(proxies[0])
	for i := range 2 {
		addr := next()
		s.apis = append(s.apis, "http://"+addr)
		s.add(fmt.Sprint("api-", i+1), "marchproxy-api", "http://"+addr+"/readyz", "DATABASE_URL="+database, "NATS_URL="+nats.URL(),
			"SECRET_KEY="+secretKey, "API_ADDR="+addr, "API_FIRST_TOKEN="+token, "CLUSTER_API_KEY="+clusterKey,
			"MARCHPROXY_DEFAULT_PORT="+defaultPort, "ALLOW_ENDPOINTS=loopback")
	}
	for i, name := range []string{"default", "second"} {
		grpc, web, admin, own := next(), next(), next(), next()
		s.add(fmt.Sprint("xds-", i+1), "marchproxy-xds", "http://"+web+"/readyz", "NATS_URL="+nats.URL(), "SECRET_KEY="+secretKey,
			"XDS_GRPC_ADDR="+grpc, "XDS_HTTP_ADDR="+web, fmt.Sprint("XDS_ID=xds-", i+1), "MARCHPROXY_STATE_DIR="+t.TempDir(),
			"MARCHPROXY_WASM_DIR="+s.wasm, "ALLOW_ENDPOINTS=loopback")
		a := s.add(fmt.Sprint("agent-", i+1), "marchproxy-agent", "http://"+own+"/readyz", "NATS_URL="+nats.URL(),
			fmt.Sprint("AGENT_ID=node-", i+1), fmt.Sprint("NODE_ID=node-", i+1), "XDS_SERVER="+grpc, "CLUSTER_API_KEY="+clusterKey,
			"GATEWAY="+name, "ENVOY_ADMIN_ADDR="+admin, "AGENT_HTTP_ADDR="+own, "ENVOY_CONCURRENCY=1",
			"MARCHPROXY_STATE_DIR="+t.TempDir(), "MARCHPROXY_RUN_DIR="+filepath.Join(t.TempDir(), "run"))
		s.gateways = append(s.gateways, gateway{name, proxies[i], a})
	}
	t.Cleanup(func() {
		for _, name := range []string{"agent-1", "agent-2", "xds-1", "xds-2", "api-1", "api-2"} {
			s.parts[name].stop(t)
		}
	})
	return s
}

// add notes a part, which is not started yet.
func (s *system) add(name, program, ready string, env ...string) *part {
	p := &part{name: name, program: program, ready: ready, log: &bytes.Buffer{}, env: append(env,
		"PATH="+os.Getenv("PATH"), "LOGLEVEL=warn")}
	s.parts[name] = p
	return p
}

// install puts a release's filters where Envoys and xDS servers find them, each in one step.
func (s *system) install(r release) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.filters, "*.wasm"))
	if err != nil || len(files) == 0 {
		s.t.Fatal("no filters in ", r.filters, err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		to := filepath.Join(s.wasm, filepath.Base(f))
		if err := errors.Join(err, os.WriteFile(to+".new", raw, 0o644), os.Rename(to+".new", to)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// database is a PostgreSQL for the time of the test.
func (s *system) database() string {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "marchproxy-upgrade-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // the server's user must get in
	}
	ports, perr := porttest.Take(1)
	if err := errors.Join(err, perr); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(s.now.bin, "marchproxy"), "dev", "database", "--state-dir", dir, "--postgres-port",
		fmt.Sprint(ports[0]))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait(), os.RemoveAll(dir)); err != nil {
			s.t.Error(err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.t.Fatal("the database does not start: ", err)
	}
	return strings.TrimSpace(line)
}

// run starts parts of a release, in the place of what they were, one after another, and waits for each to be ready.
func (s *system) run(r release, names ...string) {
	s.t.Helper()
	for _, name := range names {
		p := s.parts[name]
		p.stop(s.t)
		began := time.Now()
		p.start(s.t, r, s.envoy[r.name])
		p.await(s.t)
		s.t.Logf("%s is of the %s release, ready after %v", name, r.name, time.Since(began).Round(time.Millisecond))
	}
}

func (p *part) start(t *testing.T, r release, envoy string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of, p.log = r, &bytes.Buffer{}
	p.cmd = exec.Command(filepath.Join(r.bin, p.program))
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(p.env, "ENVOY_PATH="+envoy), p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// stop asks the process to end, as whoever upgrades does.
func (p *part) stop(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	late := time.AfterFunc(farewell, func() { _ = p.cmd.Process.Kill() })
	err := errors.Join(p.cmd.Process.Signal(syscall.SIGTERM), p.cmd.Wait())
	if late.Stop(); err != nil {
		t.Errorf("%s of the %s release ended with %v\n%s", p.name, p.of.name, err, p.log)
	}
	p.cmd = nil
}

// isReady asks the part.
func (p *part) isReady(ctx context.Context) bool {
	code, _, err := ask(ctx, http.MethodGet, p.ready, "")
	return err == nil && code == http.StatusOK
}

func (p *part) await(t *testing.T) {
	t.Helper()
	limit, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := harness.Await(limit, func() bool { return p.isReady(limit) }); err != nil {
		p.stop(t)
		t.Fatalf("%s of the %s release does not get ready: %v\n%s", p.name, p.of.name, err, p.log)
	}
}

// client gives no connection to two requests of the same moment, and none a second chance.
var client = &http.Client{Timeout: 20 * time.Second}

func ask(ctx context.Context, method, url, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, raw, err
}

// put writes an object at any api that is there.
func (s *system) put(path, body string) {
	s.t.Helper()
	code, raw, err := ask(s.t.Context(), http.MethodPut, s.apis[0]+"/v1/"+path, body)
	if err != nil || code > 202 {
		s.t.Fatalf("PUT %s: %d %s %v", path, code, raw, err)
	}
}

// agree waits until every xDS server and Envoy has the newest revision.
func (s *system) agree() {
	s.t.Helper()
	why := ""
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); {
		var st api.Status
		code, raw, err := ask(s.t.Context(), http.MethodGet, s.apis[0]+"/v1/status", "")
		switch {
		case err != nil || code != 200 || json.Unmarshal(raw, &st) != nil:
			why = fmt.Sprint(code, err)
		case st.LiveRevision == st.Revision:
			return
		default:
			why = fmt.Sprintf("revision %d, live %d", st.Revision, st.LiveRevision)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-s.t.Context().Done():
			s.t.Fatal(s.t.Context().Err())
		}
	}
	s.t.Errorf("not all have the newest revision: %s", why)
}
