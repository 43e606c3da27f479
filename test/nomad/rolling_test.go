package nomad

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	filters "github.com/marchproxy/marchproxy/wasm-filters"
)

var full = flag.Bool("full", false, "keep the times of the jobs as they are; otherwise a tenth of them")

// TestRollingRestart: the jobs bring a system up on three clients, and each of them is replaced by another version in the
// order that its update block asks for, while 200 requests and five writes a second go on: no request fails, no write is
// lost.
func TestRollingRestart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	_ = root(t) // found from here: natsServer goes elsewhere
	c := newCluster(t, 3)
	if c.pace = 0.1; *full {
		c.pace = 1
	}
	var err error
	if c.envoy, err = harness.EnvoyPath(); err != nil {
		t.Fatal(err)
	}
	c.programs()
	secrets, pki := c.secrets()
	c.postgres(pki)
	c.natsServer(pki)
	c.vault = filled(t, pki, secrets)

	c.batch(t.Context(), load(t, "migrate"))
	c.run(load(t, "api"))
	c.run(load(t, "xds"))
	c.run(load(t, "proxy", "xdp_interface=eth0"), c.nodes[:2]...)
	for _, n := range c.nodes[:2] {
		out, err := exec.Command("ip", "-n", n.namespace, "link", "show", "eth0").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "xdp") {
			t.Errorf("%s: the interface is not guarded: %s %v", n.name, out, err)
		}
	}
	l := c.begin(pki, secrets)
	for _, x := range []struct {
		name string
		vars []string
	}{{"api", nil}, {"xds", nil}, {"proxy", []string{"xdp_interface=eth0"}}} {
		c.replace(load(t, x.name, append(x.vars, "loglevel=warn")...))
		l.look(x.name + " replaced")
	}
	l.end()
	c.close() // while there is a database and a NATS
}

// programs puts what the images have where tasks find it.
func (c *cluster) programs() {
	c.t.Helper()
	dir := c.t.TempDir()
	for name, from := range map[string]string{
		"marchproxy-api": filepath.Join(c.bin, "marchproxy-api"), "marchproxy-xds": filepath.Join(c.bin, "marchproxy-xds"),
		"marchproxy-agent": filepath.Join(c.bin, "marchproxy-agent"), "envoy": c.envoy,
	} {
		raw, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), raw, 0o755)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.wasm = c.t.TempDir()
	if err := filters.Install(c.wasm); err != nil {
		c.t.Fatal(err)
	}
	c.bin = dir
}

// secrets makes what docs/deploy-nomad.md has an operator make.
func (c *cluster) secrets() (secrets, pki string) {
	c.t.Helper()
	secrets, pki = c.t.TempDir(), filepath.Join(c.t.TempDir(), "pki")
	for _, name := range []string{"secret-key", "cluster-key", "admin-token"} {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(hex.EncodeToString(b[:])+"\n"), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	all := [][]string{
		{"init"},
		{"issue", "api", "api", "--host", "api.internal"},
		{"issue", "nats", "nats-1", "--host", "nats.internal"},
		{"issue", "postgres", "db-1", "--host", "db.internal"},
		{"issue", "operator", "ops"},
	}
	for _, n := range c.nodes {
		all = append(all, []string{"issue", "xds", n.name, "--host", "xds.internal"},
			[]string{"issue", "agent", n.name, "--gateway", "default"})
	}
	for _, args := range all {
		c.pki(pki, args...)
	}
	return secrets, pki
}

func (c *cluster) pki(dir string, args ...string) string {
	c.t.Helper()
	out, err := exec.Command(harness.ProgramForTest(c.t, "marchproxy"), append([]string{"pki", "--dir", dir}, args...)...).
		CombinedOutput()
	if err != nil {
		c.t.Fatalf("marchproxy pki %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// postgres runs dev's PostgreSQL with what pki has issued: TLS, and a client's certificate in the place of a password. The
// nodes reach it at db.internal:5432.
func (c *cluster) postgres(pki string) {
	c.t.Helper()
	dir, err := os.MkdirTemp("", "marchproxy-nomad-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	ports, perr := porttest.Take(1)
	if err != nil || perr != nil {
		c.t.Fatal(err, perr)
	}
	cmd := exec.Command(harness.ProgramForTest(c.t, "marchproxy"), "dev", "database", "--state-dir", dir, "--postgres-port",
		strconv.Itoa(ports[0]))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		_ = cmd.Wait()                       // how it ends is not what this is about
		_ = os.RemoveAll(dir)                // below the temporary directory
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		c.t.Fatal("the database does not start: ", line, err)
	}
	data := filepath.Join(dir, "postgres", "data")
	info, err := os.Stat(data)
	if err != nil {
		c.t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	issued := filepath.Join(pki, "issued", "postgres-db-1")
	for _, name := range []string{"cert.pem", "key.pem", "ca.pem", "crl.pem"} {
		raw, err := os.ReadFile(filepath.Join(issued, name))
		to := filepath.Join(data, name)
		if err == nil {
			err = os.WriteFile(to, raw, 0o600)
		}
		if err == nil {
			err = os.Chown(to, int(owner.Uid), int(owner.Gid))
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	settings := fmt.Sprintf("ssl = on\nssl_cert_file = '%[1]s/cert.pem'\nssl_key_file = '%[1]s/key.pem'\n"+
		"ssl_ca_file = '%[1]s/ca.pem'\nssl_crl_file = '%[1]s/crl.pem'\n", data)
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(settings)
		_ = f.Close() // what was written is looked at by the server
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte("hostssl marchproxy marchproxy all cert\n"), 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		c.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.SplitN(string(raw), "\n", 2)[0])
	if err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil { // pg_ctl reload
		c.t.Fatal(err)
	}
	c.forward("5432", "127.0.0.1:"+strconv.Itoa(ports[0]))
}

// forward passes connections to a port of this machine's address on the bridge on.
func (c *cluster) forward(port, to string) {
	c.t.Helper()
	lis, err := net.Listen("tcp", net.JoinHostPort(c.host, port))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = lis.Close() }) // the test is over
	go func() {
		for {
			in, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = in.Close() }() // its end is the other's
				out, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(out, in) // until one of them ends
					_ = out.Close()
				}()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
}

// natsServer runs the configuration that pki wrote, at nats.internal:4222.
func (c *cluster) natsServer(pki string) {
	c.t.Helper()
	conf := filepath.Join(pki, "issued", "nats-nats-1", "nats.conf")
	raw, err := os.ReadFile(conf)
	if err != nil {
		c.t.Fatal(err)
	}
	text := strings.NewReplacer("0.0.0.0:4222", c.host+":4222", `"jetstream"`, strconv.Quote(c.t.TempDir())).Replace(string(raw))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.t.Chdir(filepath.Dir(conf)) // the configuration names files beside it
	opts, err := server.ProcessConfigFile(conf)
	if err != nil {
		c.t.Fatal(err)
	}
	opts.NoSigs, opts.NoLog = true, true
	s, err := server.NewServer(opts)
	if err != nil {
		c.t.Fatal(err)
	}
	s.Start()
	c.t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(20 * time.Second) {
		c.t.Fatal("NATS does not start")
	}
}

// traffic is requests to the proxies, and writes to the apis, that Nomad's services offer.
type traffic struct {
	c              *cluster
	stop           context.CancelFunc
	wg             sync.WaitGroup
	api            *http.Client
	token          string
	served, failed atomic.Int64
	written, again atomic.Int64

	mu    sync.Mutex
	first string
	last  string // the last body that was acknowledged
}

func (c *cluster) begin(pki, secrets string) *traffic {
	c.t.Helper()
	dir := filepath.Join(pki, "issued", "operator-ops")
	id, err := identity.Open(identity.Files{
		Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(secrets, "admin-token"))
	if err != nil {
		c.t.Fatal(err)
	}
	l := &traffic{
		c: c, token: strings.TrimSpace(string(token)),
		api: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: id.Client("api.internal")}},
	}
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "backend") // the client is gone: nobody is left to tell
	}))
	_ = backend.Listener.Close() // that of the loopback, which the nodes do not reach
	if backend.Listener, err = net.Listen("tcp", net.JoinHostPort(c.host, "0")); err != nil {
		c.t.Fatal(err)
	}
	backend.Start()
	c.t.Cleanup(backend.Close)
	_, port, _ := net.SplitHostPort(backend.Listener.Addr().String())
	ctx, stop := context.WithCancel(c.t.Context())
	l.stop = stop
	for _, x := range [][2]string{
		{"services/backend", `{"spec":{"endpoints":[{"host":"` + c.host + `","port":` + port + `}]}}`},
		{"routes/steady?wait=live", `{"spec":{"hosts":["steady.example.com"],"backends":[{"service":"backend"}]}}`},
	} {
		if code, raw, err := l.put(ctx, c.offered("marchproxy-api")[0], x[0], x[1]); err != nil || code != 201 {
			c.t.Fatal(code, raw, err)
		}
	}
	for k := range 4 {
		l.wg.Go(func() {
			for n := k; rest(ctx, 20*time.Millisecond); n++ {
				l.request(ctx, n)
			}
		})
	}
	l.wg.Go(func() {
		for n := 1; rest(ctx, 200*time.Millisecond); n++ {
			l.write(ctx, n)
		}
	})
	return l
}

func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *traffic) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed.Add(1); l.first == "" {
		l.first = fmt.Sprintf(format, args...)
	}
}

func (l *traffic) request(ctx context.Context, n int) {
	all := l.c.offered("marchproxy-proxy")
	if len(all) == 0 {
		l.note("no proxy is offered")
		return
	}
	body, err := get(ctx, all[n%len(all)], "steady.example.com")
	if ctx.Err() != nil {
		return
	}
	if l.served.Add(1); err != nil || body != "backend" {
		l.note("%s: %q %v", all[n%len(all)], body, err)
	}
}

var client = &http.Client{Timeout: 20 * time.Second}

func get(ctx context.Context, address, host string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+":10000/", nil)
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
	return string(raw), err
}

func (l *traffic) put(ctx context.Context, address, path, doc string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "https://"+address+":8000/v1/"+path, strings.NewReader(doc))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+l.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.api.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

// write puts a route, at another api where one is going: a PUT may be sent again.
func (l *traffic) write(ctx context.Context, n int) {
	body := strconv.Itoa(n)
	for try := range 40 {
		all := l.c.offered("marchproxy-api")
		if len(all) > 0 {
			code, raw, err := l.put(ctx, all[(n+try)%len(all)], "routes/written",
				`{"spec":{"hosts":["written.example.com"],"direct_response":{"status":200,"body":"`+body+`"}}}`)
			if ctx.Err() != nil {
				return
			}
			if err == nil && code < 300 {
				l.written.Add(1)
				l.mu.Lock()
				l.last = body
				l.mu.Unlock()
				return
			}
			if err == nil && code != http.StatusServiceUnavailable {
				l.c.t.Errorf("a write is refused: %d %s", code, raw)
				return
			}
		}
		l.again.Add(1)
		if !rest(ctx, 100*time.Millisecond) {
			return
		}
	}
	l.c.t.Error("no api takes a write for four seconds")
}

func (l *traffic) look(step string) {
	l.c.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first != "" {
		l.c.t.Fatalf("%s: %d of %d requests failed; the first: %s", step, l.failed.Load(), l.served.Load(), l.first)
	}
}

// end stops the traffic, and looks whether both proxies serve what was written last.
func (l *traffic) end() {
	t := l.c.t
	t.Helper()
	l.stop()
	l.wg.Wait()
	harness.Eventually(t, func() string {
		for _, address := range l.c.offered("marchproxy-proxy") {
			if body, err := get(t.Context(), address, "written.example.com"); err != nil || body != l.last {
				return fmt.Sprintf("%s serves %q %v, want %q", address, body, err, l.last)
			}
		}
		return ""
	})
	if n := len(l.c.offered("marchproxy-proxy")); n != 2 {
		t.Errorf("%d proxies are offered in the end", n)
	}
	if l.served.Load() == 0 || l.written.Load() == 0 {
		t.Error("there was no traffic")
	}
	t.Logf("%d requests, %d failed; %d writes acknowledged, %d sent again", l.served.Load(), l.failed.Load(), l.written.Load(),
		l.again.Load())
}
