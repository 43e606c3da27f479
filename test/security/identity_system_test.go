package security

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/marchproxy/marchproxy/pkg/bus"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	filters "github.com/marchproxy/marchproxy/wasm-filters"
)

// apart is the whole system as on machines of their own: every part with what `marchproxy pki` has issued, TLS with
// certificates on both sides everywhere, and NATS with a user a part.
type apart struct {
	t                                          *testing.T
	bin, pki, pgData                           string
	natsPort, pgPort, apiPort, grpcPort, xPort int
	proxy                                      string
	nats                                       *server.Server
	token                                      string
	agent                                      *harness.Agent
	logs                                       map[string]*logged
}

const (
	identitySecret = "the secret of this identity test"
	identityKey    = "the-first-key-of-the-default"
)

// logged gathers what a program says.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func startApart(t *testing.T) *apart {
	t.Helper()
	ports, err := porttest.Take(7)
	if err != nil {
		t.Fatal(err)
	}
	a := &apart{
		t: t, bin: filepath.Dir(harness.ProgramForTest(t, "marchproxy")), pki: filepath.Join(t.TempDir(), "pki"),
		natsPort: ports[0], pgPort: ports[1],
		apiPort:  ports[2],
		grpcPort: ports[3], xPort: ports[4], proxy: "127.0.0.1:" + strconv.Itoa(ports[5]), logs: map[string]*logged{},
	}
	a.command("init")
	for _, args := range [][]string{
		{"api", "api-1", "--host", "127.0.0.1"},
		{"xds", "xds-1", "--host", "127.0.0.1"},
		{"nats", "nats-1", "--host", "127.0.0.1"},
		{"postgres", "db-1", "--host", "127.0.0.1"},
		{"reader", "audit"},
		{"operator", "ops"},
		{"agent", "edge-1", "--gateway", "default"},
		{"agent", "edge-2", "--gateway", "other"},
		{"agent", "edge-3", "--gateway", "default"},
	} {
		a.command(append([]string{"issue"}, args...)...)
	}
	a.startNATS()
	a.startPostgres()
	a.run("api", append(a.env("api-api-1"), "API_ADDR=127.0.0.1:"+strconv.Itoa(a.apiPort), "CLUSTER_API_KEY="+identityKey,
		"MARCHPROXY_DEFAULT_PORT="+strconv.Itoa(ports[5]), "DATABASE_URL="+a.databaseURL("marchproxy"))...)
	shown := regexp.MustCompile(`mp_\S+`)
	a.until("the api prints the first token", func() bool {
		a.token = shown.FindString(a.logs["api"].String())
		return a.token != ""
	})
	modules := t.TempDir() // the limit of connections by address is there unasked
	if err := filters.Install(modules); err != nil {
		t.Fatal(err)
	}
	a.run("xds", append(a.env("xds-xds-1"), "XDS_GRPC_ADDR=127.0.0.1:"+
		strconv.Itoa(a.grpcPort), "XDS_HTTP_ADDR=127.0.0.1:"+strconv.Itoa(a.xPort),
		"XDS_ID=xds-1", "MARCHPROXY_STATE_DIR="+t.TempDir(), "MARCHPROXY_WASM_DIR="+modules)...)
	envoy, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	a.agent, err = harness.StartAgent(append(a.env("agent-edge-1"), "AGENT_ID=edge-1", "XDS_SERVER=127.0.0.1:"+
		strconv.Itoa(a.grpcPort),
		"CLUSTER_API_KEY="+identityKey, "ENVOY_PATH="+envoy, "ENVOY_CONCURRENCY=1", "ENVOY_ADMIN_ADDR=127.0.0.1:"+
			strconv.Itoa(ports[6]),
		"MARCHPROXY_RUN_DIR="+t.TempDir(), "MARCHPROXY_STATE_DIR="+t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	a.logs["agent"] = &logged{}
	t.Cleanup(func() {
		_ = a.agent.Stop(syscall.SIGTERM) // how it ends is not what this is about
		if t.Failed() {
			t.Log("agent:\n", a.agent.Log())
		}
	})
	return a
}

// command runs marchproxy pki.
func (a *apart) command(args ...string) string {
	a.t.Helper()
	cmd := exec.Command(filepath.Join(a.bin, "marchproxy"), append([]string{"pki", "--dir", a.pki}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		a.t.Fatalf("marchproxy pki %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (a *apart) issued(part, file string) string { return filepath.Join(a.pki, "issued", part, file) }

// env is what a part is told of its identity, and where NATS is.
func (a *apart) env(part string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "SECRET_KEY=" + identitySecret, "NATS_URL=tls://127.0.0.1:" + strconv.Itoa(a.natsPort),
		"NATS_NKEY_FILE=" + a.issued(part, "nats.nkey"), "MARCHPROXY_TLS_CERT=" + a.issued(part, "cert.pem"),
		"MARCHPROXY_TLS_KEY=" + a.issued(part, "key.pem"), "MARCHPROXY_TLS_CA=" + a.issued(part, "ca.pem"),
		"MARCHPROXY_TLS_CRL=" + a.issued(part, "crl.pem"),
	}
}

func (a *apart) run(name string, env ...string) {
	a.t.Helper()
	log := &logged{}
	a.logs[name] = log
	cmd := exec.Command(filepath.Join(a.bin, "marchproxy-"+name))
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // how it ends, its log says
	a.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		<-ended
		if a.t.Failed() {
			a.t.Logf("%s:\n%s", name, log)
		}
	})
}

func (a *apart) until(what string, holds func() bool) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 90*time.Second)
	defer cancel()
	if harness.Await(ctx, holds) != nil {
		for name, log := range a.logs {
			a.t.Logf("%s:\n%s", name, log)
		}
		a.t.Fatal("in vain: ", what)
	}
}

// startNATS runs the configuration that pki wrote, on a port and in a directory of the test.
func (a *apart) startNATS() {
	conf := a.issued("nats-nats-1", "nats.conf")
	raw, err := os.ReadFile(conf)
	if err != nil {
		a.t.Fatal(err)
	}
	text := strings.NewReplacer("0.0.0.0:4222", "127.0.0.1:"+strconv.Itoa(a.natsPort), `"jetstream"`,
		strconv.Quote(a.t.TempDir())).Replace(string(raw))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
	a.beside(conf, func() {
		opts, err := server.ProcessConfigFile(conf)
		if err != nil {
			a.t.Fatal(err)
		}
		opts.NoSigs, opts.NoLog = true, true
		if a.nats, err = server.NewServer(opts); err != nil {
			a.t.Fatal(err)
		}
	})
	a.nats.Start()
	a.t.Cleanup(func() {
		a.nats.Shutdown()
		a.nats.WaitForShutdown()
	})
	if !a.nats.ReadyForConnections(20 * time.Second) {
		a.t.Fatal("NATS does not start")
	}
}

// reloadNATS is nats-server --signal reload.
func (a *apart) reloadNATS() {
	a.t.Helper()
	a.beside(a.issued("nats-nats-1", "nats.conf"), func() {
		if err := a.nats.Reload(); err != nil {
			a.t.Fatal(err)
		}
	})
}

// beside runs something in a file's directory, from which nats-server reads its certificates.
func (a *apart) beside(file string, do func()) {
	was, err := os.Getwd()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.Chdir(filepath.Dir(file)); err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = os.Chdir(was) }() // it is there
	do()
}

var pgPassword = regexp.MustCompile(`marchproxy:([^@]+)@`)

// startPostgres runs dev's PostgreSQL, and has it take TLS with a client's certificate and nothing else.
func (a *apart) startPostgres() {
	dir, err := os.MkdirTemp("", "marchproxy-identity-")
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = os.RemoveAll(dir) }) // below the temporary directory
	if err := os.Chmod(dir, 0o755); err != nil {
		a.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(a.bin, "marchproxy"), "dev", "database", "--state-dir", dir, "--postgres-port",
		strconv.Itoa(a.pgPort))
	out, err := cmd.StdoutPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !pgPassword.MatchString(line) {
		a.t.Fatal("the database does not start: ", line, err)
	}
	a.pgData = filepath.Join(dir, "postgres", "data")
	a.postgresCertificates()
	conf := ""
	for _, s := range strings.Split(a.command("issue", "postgres", "db-1", "--host", "127.0.0.1"), "\n") {
		if strings.HasPrefix(s, "ssl") {
			conf += strings.ReplaceAll(s, filepath.Join(a.pki, "issued", "postgres-db-1"), a.pgData) + "\n"
		}
	}
	a.postgresCertificates()
	a.append("postgresql.conf", conf, false)
	a.append("pg_hba.conf", "hostssl all marchproxy all cert\n", true)
	a.reloadPostgres()
}

// postgresCertificates copies what pki has issued to where PostgreSQL, which is another user, may read it.
func (a *apart) postgresCertificates() {
	a.t.Helper()
	info, err := os.Stat(a.pgData)
	if err != nil {
		a.t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	for _, name := range []string{"cert.pem", "key.pem", "ca.pem", "crl.pem"} {
		raw, err := os.ReadFile(a.issued("postgres-db-1", name))
		if err != nil {
			a.t.Fatal(err)
		}
		to := filepath.Join(a.pgData, name)
		if err := os.WriteFile(to, raw, 0o600); err != nil {
			a.t.Fatal(err)
		}
		if err := os.Chown(to, int(owner.Uid), int(owner.Gid)); err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *apart) append(name, text string, alone bool) {
	a.t.Helper()
	path := filepath.Join(a.pgData, name)
	was, err := os.ReadFile(path)
	if err != nil {
		a.t.Fatal(err)
	}
	if alone {
		was = nil
	}
	if err := os.WriteFile(path, append(was, text...), fs.FileMode(0o600)); err != nil {
		a.t.Fatal(err)
	}
}

// reloadPostgres is pg_ctl reload.
func (a *apart) reloadPostgres() {
	a.t.Helper()
	raw, err := os.ReadFile(filepath.Join(a.pgData, "postmaster.pid"))
	if err != nil {
		a.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.SplitN(string(raw), "\n", 2)[0])
	if err != nil {
		a.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		a.t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // PostgreSQL logs that it is about to read its files, not that it has
}

func (a *apart) databaseURL(user string) string {
	q := url.Values{
		"sslmode": {"verify-full"}, "sslrootcert": {a.issued("api-api-1", "ca.pem")},
		"sslcert": {a.issued("api-api-1", "cert.pem")}, "sslkey": {a.issued("api-api-1", "key.pem")},
	}
	return fmt.Sprintf("postgresql://%s@127.0.0.1:%d/marchproxy?%s", user, a.pgPort, q.Encode())
}

// as is the identity of a part.
func (a *apart) as(part string) (identity.Settings, *identity.Identity) {
	a.t.Helper()
	s := identity.Settings{Files: identity.Files{
		Cert: a.issued(part, "cert.pem"), Key: a.issued(part, "key.pem"), CA: a.issued(part, "ca.pem"),
		CRL: a.issued(part, "crl.pem"),
	}}
	if seed, err := os.ReadFile(a.issued(part, "nats.nkey")); err == nil {
		s.Seed = strings.TrimSpace(string(seed))
	}
	id, err := identity.Open(s.Files)
	if err != nil {
		a.t.Fatal(err)
	}
	return s, id
}

// atNATS connects as a part, and hands over what it is not let do.
func (a *apart) atNATS(part string) (*nats.Conn, <-chan error) {
	a.t.Helper()
	s, id := a.as(part)
	options, err := bus.Options(s, id)
	if err != nil {
		a.t.Fatal(err)
	}
	refusals := make(chan error, 100)
	nc, err := nats.Connect("tls://127.0.0.1:"+strconv.Itoa(a.natsPort), append(options,
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refusals <- err }))...)
	if err != nil {
		a.t.Fatalf("%s at NATS: %v", part, err)
	}
	a.t.Cleanup(nc.Close)
	return nc, refusals
}

// call asks the api as a person who has the reader's certificate and the first token.
func (a *apart) call(method, path string, body, into any) (int, string) {
	a.t.Helper()
	_, id := a.as("reader-audit")
	return a.callWith(id.Client(""), method, "https://127.0.0.1:"+strconv.Itoa(a.apiPort)+path, body, into)
}

func (a *apart) callWith(way *tls.Config, method, url string, body, into any) (int, string) {
	a.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		a.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(a.t.Context(), method, url, bytes.NewReader(raw))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	transport := &http.Transport{TLSClientConfig: way}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: 70 * time.Second}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			a.t.Fatalf("%s %s: %v\n%s", method, url, err, text)
		}
	}
	return resp.StatusCode, string(text)
}

// trusting is a client without a certificate.
func (a *apart) trusting() *tls.Config {
	raw, err := os.ReadFile(filepath.Join(a.pki, "ca.pem"))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(raw)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
