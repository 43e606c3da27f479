package dev

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/endpoint"
	"github.com/marchproxy/marchproxy/services/cli/internal/envoybin"
	"github.com/marchproxy/marchproxy/services/cli/internal/pki"
	filters "github.com/marchproxy/marchproxy/wasm-filters"
)

// nobody is the user that PostgreSQL runs as where dev is root: Debian's nobody, and its group.
const nobody = 65534

// secrets are made on the first run and kept.
type secrets struct {
	SecretKey, ClusterKey, NatsToken, PGPassword string
}

// runFile shows what runs; it is written at every start of a child, for tests and the curious.
const runFile = "run.json"

// shown is what is in [runFile].
type shown struct {
	Pids  map[string]int    `json:"pids"`
	URLs  map[string]string `json:"urls"`
	Ready bool              `json:"ready"`
}

type system struct {
	Options
	// root is the state directory as /proc shows it: absolute, and without symbolic links.
	root string
	// ownDatabase is false where DATABASE_URL names another.
	ownDatabase bool
	say         func(string)
	logs        string
	secrets     secrets
	token       string
	children    []*child

	// mu guards what run.json shows.
	mu    sync.Mutex
	urls  map[string]string
	ready bool
}

func run(ctx context.Context, o Options, out io.Writer) error {
	s := &system{
		Options: o, say: func(line string) { fmt.Fprintln(out, line) }, logs: filepath.Join(o.StateDir, "log"),
		ownDatabase: os.Getenv("DATABASE_URL") == "",
	}
	lock, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // ends with the process anyway
	s.sweep()
	s.keepProxyPort()
	if err := s.ports(ctx); err != nil {
		return err
	}
	if err := errors.Join(s.loadSecrets(), s.loadToken()); err != nil {
		return err
	}
	envoy, err := envoybin.Find(ctx, o.Cache, s.say)
	if ctx.Err() != nil {
		return nil // Ctrl-C while it was fetched
	}
	if err != nil {
		return err
	}
	if filepath.Dir(envoy) != filepath.Clean(o.Cache) {
		s.say("using the Envoy " + envoybin.Version + " at " + envoy)
	}
	if err := filters.Install(s.wasmDir()); err != nil {
		return err
	}
	if err := s.plan(envoy); err != nil {
		return err
	}
	shut, err := s.openDoor(ctx)
	if err != nil {
		return err
	}
	defer shut()
	end, err := s.observe(ctx)
	if err != nil {
		return err
	}
	defer end()
	return s.serve(ctx)
}

// wasmDir is where this machine's Envoy has the filters; every state directory shares it.
func (s *system) wasmDir() string { return filepath.Join(s.Cache, "wasm") }

func (s *system) loadSecrets() error {
	path := filepath.Join(s.StateDir, "secrets.json")
	raw, err := os.ReadFile(path)
	if err == nil {
		if err := json.Unmarshal(raw, &s.secrets); err != nil {
			return fmt.Errorf("%s cannot be read (%w); restore it, or remove %s to begin anew: what is kept there opens with "+
				"these secrets only", path, err, s.StateDir)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.secrets = secrets{random(), random(), random(), random()}
	raw, err = json.Marshal(s.secrets)
	if err != nil {
		return err
	}
	return replace(path, raw)
}

// replace writes a file in one step: a run that is killed leaves the old one or the new one.
func replace(path string, raw []byte) error {
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func random() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// sibling finds a program next to this one, or on PATH.
func sibling(name string) (string, error) {
	own, err := os.Executable()
	if err == nil {
		if path := filepath.Join(filepath.Dir(own), name); isFile(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside marchproxy nor on PATH; build it with: make build", name)
	}
	return path, nil
}

func isFile(path string) bool {
	i, err := os.Stat(path)
	return err == nil && i.Mode().IsRegular()
}

// plan decides what runs, in which order.
func (s *system) plan(envoy string) error {
	api, err := sibling("marchproxy-api")
	if err != nil {
		return err
	}
	xds, err := sibling("marchproxy-xds")
	if err != nil {
		return err
	}
	database := os.Getenv("DATABASE_URL")
	if s.ownDatabase {
		database = s.databaseURL()
		if err := s.planPostgres(); err != nil {
			return err
		}
	}
	users, seeds, err := s.natsUsers()
	if err != nil {
		return err
	}
	env := []string{
		"DATABASE_URL=" + database, "NATS_URL=nats://" + local(s.NatsPort), "SECRET_KEY=" + s.secrets.SecretKey,
		"API_ADDR=" + local(s.APIPort), "API_UI_ADDR=" + local(s.UIPort), "XDS_GRPC_ADDR=" + local(s.GRPCPort),
		"XDS_HTTP_ADDR=" + local(s.HTTPPort), "XDS_ID=" + ownID,
		"API_FIRST_TOKEN=" + s.token, "XDS_USER_TOKEN_FILE=" + s.tokenPath(), "MARCHPROXY_DEV=true",
		"MARCHPROXY_DEFAULT_PORT=" + strconv.Itoa(s.ProxyPort), "MARCHPROXY_STATE_DIR=" + filepath.Join(s.StateDir, "xds"),
		"MARCHPROXY_WASM_DIR=" + s.wasmDir(), "LOGLEVEL=" + s.LogLevel,
	}
	if os.Getenv(endpoint.Setting) == "" { // the backends of who develops are on this machine
		env = append(env, endpoint.Setting+"=loopback")
	}
	service := func(path string, own ...string) func() *exec.Cmd {
		return func() *exec.Cmd {
			cmd := exec.Command(path)
			cmd.Env = s.environ(append(own, env...)...)
			return cmd
		}
	}
	boot := filepath.Join(s.StateDir, "envoy.json")
	envoyConfig := bootstrap.Config{
		NodeID: envoyID, XDSServer: local(s.GRPCPort), APIKey: s.secrets.ClusterKey, AdminAddr: s.adminSocket(), LogFile: true,
		TailSocket: s.tailSocket(),
	}
	if envoy, err = filepath.Abs(envoy); err != nil {
		return err
	}
	if err := writeBootstrap(boot, envoyConfig); err != nil {
		return err
	}
	s.urls = map[string]string{
		"api": "http://" + local(s.APIPort), "ui": fmt.Sprintf("http://localhost:%d", s.UIPort),
		"xds": "http://" + local(s.HTTPPort), "grpc": local(s.GRPCPort), "proxy": local(s.ProxyPort),
		"admin": "http://" + local(s.AdminPort), "backend": local(s.BackendPort),
	}
	s.children = append(s.children,
		&child{name: "nats", make: s.self([]string{natsUsersSetting + "=" + users}, "nats", strconv.Itoa(s.NatsPort),
			filepath.Join(s.StateDir, "nats")), ready: tcpOK(local(s.NatsPort)), beside: true},
		&child{
			name: "api", make: service(api, "CLUSTER_API_KEY="+s.secrets.ClusterKey, "NATS_NKEY="+seeds[pki.API]),
			ready: httpOK(s.urls["api"] + "/readyz"),
		},
		&child{
			name: "xds", make: service(xds, "NATS_NKEY="+seeds[pki.XDS]), ready: httpOK(s.urls["xds"] + "/readyz"),
			beside: true,
		},
	)
	if !s.NoDemo {
		s.children = append(s.children, &child{
			name: "backend", make: s.self(nil, "backend", strconv.Itoa(s.BackendPort)),
			ready: tcpOK(local(s.BackendPort)), beside: true,
		})
	}
	// Envoy keeps nothing, and takes apart what it serves before it ends, which takes long with much of it.
	ready := httpOK(s.urls["admin"] + "/ready")
	s.children = append(s.children, &child{name: "envoy", grace: 2 * time.Second, ready: ready, make: func() *exec.Cmd {
		// Hot restarts, which nobody does here, need shared memory that an Envoy which is killed leaves behind.
		c := s.withDrainTime(boot, envoyConfig)
		args := []string{
			"-c", boot, "--concurrency", strconv.Itoa(s.Concurrency), "--log-level", "warning",
			"--disable-hot-restart",
		}
		cmd := s.self(nil, append([]string{"envoy", envoy}, append(args, c.Flags()...)...)...)()
		cmd.Env = append(bootstrap.Environment(), s.mark())
		cmd.Dir = s.logs // the access log's file is there
		return cmd
	}})
	proxy := s.children[len(s.children)-1]
	proxy.why = func(ctx context.Context) string {
		return s.envoyWaits(ctx, proxy.supervisor.Log.Tail)
	}
	return nil
}

func writeBootstrap(path string, c bootstrap.Config) error {
	raw, err := bootstrap.Render(c)
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}

// withDrainTime asks the xDS server for the gateway's drain time, as the agent does when it starts Envoy.
func (s *system) withDrainTime(path string, c bootstrap.Config) bootstrap.Config {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	d, err := bootstrap.AskDrainTime(ctx, c)
	if err == nil {
		c.DrainTime = d
		err = writeBootstrap(path, c)
	}
	if err != nil {
		s.say(fmt.Sprintf("Envoy is started with a drain time of %v, not with that of its gateway: %v",
			bootstrap.DefaultDrainTime, err))
	}
	return c
}

func (s *system) databaseURL() string {
	return fmt.Sprintf("postgresql://marchproxy:%s@%s/marchproxy?sslmode=disable", s.secrets.PGPassword, local(s.PGPort))
}

func (s *system) serve(ctx context.Context) error {
	stops := make([]context.CancelFunc, 0, len(s.children))
	defer func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
			<-s.children[i].done
		}
		s.mu.Lock()
		s.ready = false
		s.mu.Unlock()
		s.write() // nothing runs any more
	}()
	for i, c := range s.children {
		for len(stops) == i || len(stops) < len(s.children) && s.children[len(stops)].beside {
			own, cancel := context.WithCancel(context.WithoutCancel(ctx))
			next := s.children[len(stops)]
			stops = append(stops, cancel)
			next.start(own, s.logs, s.say, s.write)
		}
		wait, done := ctx, func() error { return nil }
		if c.name == "envoy" && !s.NoDemo {
			wait, done = s.withDemo(ctx) // it waits for Envoy, and what Envoy waits for is said meanwhile
		}
		err := c.await(wait, s.logs, s.say)
		if err == nil {
			err = done()
		}
		if err == nil && c.name == "api" {
			err = s.settleProxyPort(ctx)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	s.write()
	s.greet()
	s.tellBusy(ctx)
	s.say("stopping; everything is kept in " + s.StateDir)
	return nil
}

// greet says that everything is ready, and what to do with it.
func (s *system) greet() {
	s.say(fmt.Sprintf("MarchProxy is ready: proxy http://localhost:%d  api %s  Envoy's admin %s",
		s.ProxyPort, s.urls["api"], s.urls["admin"]))
	s.say(fmt.Sprintf("Web UI: %s  (sign in with the token in %s)  Documentation: %s/docs/", s.urls["ui"], s.tokenPath(),
		s.urls["api"]))
	status := os.Args[0] + " status"
	if s.StateDir != stateDir() {
		status = "MARCHPROXY_TOKEN_FILE=" + s.tokenPath() + " " + status
	}
	if s.APIPort != defaultAPIPort {
		status = "MARCHPROXY_API=" + s.urls["api"] + " " + status
	}
	s.say(fmt.Sprintf(`The api wants your token:  curl -H "Authorization: Bearer $(cat %s)" %s/v1/routes`, s.tokenPath(),
		s.urls["api"]))
	s.say(fmt.Sprintf("Try:  curl http://localhost:%d/   ·   %s   ·   Ctrl-C stops, and the next run finds what you leave",
		s.ProxyPort, status))
}

func (s *system) write() {
	s.mu.Lock() // children are started again each in its own time
	defer s.mu.Unlock()
	r := shown{Pids: map[string]int{}, URLs: s.urls, Ready: s.ready}
	for _, c := range s.children {
		if pid := c.supervisor.Pid(); pid != 0 {
			r.Pids[c.name] = pid
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return
	}
	_ = replace(filepath.Join(s.StateDir, runFile), raw) // the next start writes it again
}

// withDemo runs demo. The context ends where it fails; the function waits for its end.
func (s *system) withDemo(ctx context.Context) (context.Context, func() error) {
	out, cancel := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() {
		err := s.demo(ctx)
		if err != nil {
			cancel(err)
		}
		ended <- err
	}()
	return out, func() error { return <-ended }
}

// demo posts a first configuration where there is none: the same document as in the guide, so that
// another one posted there replaces it.
func (s *system) demo(ctx context.Context) error {
	var routes struct{ Items []json.RawMessage }
	if err := s.call(ctx, http.MethodGet, s.urls["api"]+"/v1/routes?limit=1", "", &routes); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if len(routes.Items) > 0 {
		return nil
	}
	doc := fmt.Sprintf(`{"version":"1","services":[{"name":"demo","hosts":["127.0.0.1"],"port":%d,"protocol":"http"}],
		"routes":[{"name":"demo","prefix":"/","cluster_name":"demo","hosts":["*"],"timeout":30}]}`, s.BackendPort)
	var answer any
	if err := s.call(ctx, http.MethodPost, s.urls["xds"]+"/v1/config", doc, &answer); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

func (s *system) call(ctx context.Context, method, url, body string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s answers %s: %s", method, url, resp.Status, bytes.TrimSpace(raw))
	}
	return json.Unmarshal(raw, into)
}
