package monitoring

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/marchproxy/marchproxy/pkg/dnstest"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/fanout"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// prometheus is a running one, with the project's rules.
type prometheus struct {
	url   string
	fired map[string]bool
}

// shorter are the rules' times as the test has them: minutes as seconds, so that nobody waits for them.
var shorter = strings.NewReplacer("offset 1m", "offset 2s", "[5m]", "[10s]", "[15m]", "[1m]", "> 3600", "> 3")

// watch runs Prometheus on targets (host:port and path) by job.
func watch(t *testing.T, targets map[string][]string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	rules := shorter.Replace(read(t, "deployments", "prometheus", "alerts.yml"))
	rules = regexp.MustCompile(`(?m)^( +for: ).*$`).ReplaceAllString(rules, "${1}1s")
	config := "global: {scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms}\nrule_files: " +
		"[alerts.yml]\nscrape_configs:\n"
	for job, all := range targets {
		path := "/metrics"
		if job == "marchproxy-envoy" {
			path = "/stats/prometheus"
		}
		config += fmt.Sprintf("  - {job_name: %s, metrics_path: %s, static_configs: [{targets: [%s]}]}\n", job, path,
			strings.Join(all, ", "))
	}
	for name, text := range map[string]string{"alerts.yml": rules, "prometheus.yml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	p := &prometheus{url: fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fired: map[string]bool{}}
	promtool(t, "check", "config", filepath.Join(dir, "prometheus.yml")) // scripts/needs has both programs
	cmd := exec.CommandContext(t.Context(), "prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+strings.TrimPrefix(p.url, "http://"),
		"--log.level=warn")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // what it has gathered goes with the test
	return p
}

// fires waits for alerts, all of them at once or one after the other.
func (p *prometheus) fires(t *testing.T, names ...string) {
	t.Helper()
	harness.Eventually(t, func() string {
		now, err := p.now(t)
		if err != nil {
			return err.Error()
		}
		for _, n := range now {
			p.fired[n] = true
		}
		for _, n := range names {
			if !p.fired[n] {
				return n + " does not fire; those that do: " + strings.Join(now, ", ")
			}
		}
		return ""
	})
}

// now are the alerts that fire.
func (p *prometheus) now(t *testing.T) (out []string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/api/v1/alerts", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	var answer struct {
		Data struct {
			Alerts []struct {
				Labels map[string]string
				State  string
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" && !slices.Contains(out, a.Labels["alertname"]) {
			out = append(out, a.Labels["alertname"])
		}
	}
	slices.Sort(out)
	return out, nil
}

// byUnitTest are the alerts whose condition cannot be made here in seconds.
var byUnitTest = map[string]string{
	"MarchProxyReadingBehind": "NATS would have to be slow for longer than five seconds, and not to stand",
	"MarchProxyWritesWait":    "a hundred writes would have to wait for a database that answers all of them in time",
}

// TestAlertsFire: a system is driven into the condition of each alert, and a Prometheus that watches it says so. Before
// that, when all is well, none fires but that of the retention, which looks through the history a minute after the
// start first; three seconds are an hour here.
func TestAlertsFire(t *testing.T) {
	dns, err := dnstest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dns.Close() }) // its port is the test's own
	s := harness.ForTest(t, []string{"XDS_DNS_SERVERS=" + dns.Addr}, "--no-demo")
	natsURL, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	well := startNode(t, s)
	addr := natsURL[strings.LastIndexByte(natsURL, '@')+1:]
	wire, cut := harness.Cable(t, addr)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	dir := t.TempDir()
	cert, key := certificate(t, "agent", 48)
	for name, text := range map[string]string{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := well.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	host := func(url string) string { return strings.TrimPrefix(url, "http://") }
	ill := startNode(t, s, "NATS_URL="+strings.Replace(natsURL, addr, wire, 1), "XDP_INTERFACE=nosuch0",
		"MARCHPROXY_STATE_DIR="+disk, "XDS_SERVER=127.0.0.1:1",
		"MARCHPROXY_TLS_CERT="+filepath.Join(dir, "cert.pem"), "MARCHPROXY_TLS_KEY="+filepath.Join(dir, "key.pem"),
		"ALLOW_PLAINTEXT=true")
	found, engine := startDiscover(t, s)
	p := watch(t, map[string][]string{
		"marchproxy-discover": {found},
		"marchproxy-api":      {host(s.API)}, "marchproxy-xds": {host(s.XDS)},
		"marchproxy-agent": {host(well.HTTP), host(ill.HTTP)},
		"marchproxy-envoy": {host(s.Admin), host(well.Admin)},
	})
	put := func(path string, body any) {
		t.Helper()
		if status, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/"+path, body); err != nil || status > 202 {
			t.Fatalf("%s: %d %s %v", path, status, raw, err)
		}
	}
	// A node that has been set up wrongly.
	p.fires(t, "MarchProxyXDPNotAttached", "MarchProxyIdentityExpires", "MarchProxyEnvoyDown",
		"MarchProxyRetentionStalled")
	if now, err := p.now(t); err != nil || len(now) != 4 {
		t.Errorf("beside it all is well, and these fire: %v %v", now, err)
	}
	var state struct{ Envoy struct{ Pid int } }
	harness.Eventually(t, func() string {
		if _, err := ill.Get(t.Context(), "/v1/state", &state); err != nil || state.Envoy.Pid == 0 {
			return fmt.Sprintf("no Envoy runs: %v", err)
		}
		return ""
	})
	if err := syscall.Kill(state.Envoy.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(disk, "full"), make([]byte, 60<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		put(fmt.Sprintf("rate-limit-policies/p%d", i),
			fmt.Sprintf(`{"spec":{"packets_per_second":1000000,"cidrs":["192.0.2.%d/32"]}}`, i))
	}
	p.fires(t, "MarchProxyEnvoyRestarts", "MarchProxyUnsaved")
	cut()

	// What has been written cannot be served as it is.
	chain, private := certificate(t, "web.test", 12)
	put("certificates/web", map[string]any{"spec": map[string]any{"chain": chain, "private_key": private}})
	put("certificate-issuers/away", `{"spec":{"directory":"https://127.0.0.1:1/directory","terms_agreed":true}}`)
	put("certificates/away", `{"spec":{"issuer":"away","names":["away.test"]}}`)
	put("services/named", `{"spec":{"endpoints":[{"host":"nobody.test","port":80}]}}`)
	put("services/dead", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":1}]}}`)
	put("routes/dead?wait=live", `{"spec":{"hosts":["dead.test"],"backends":[{"service":"dead"}]}}`)
	if status, raw, err := s.AdminSocket().Do(t.Context(), "POST",
		"/runtime_modify?re2.max_program_size.error_level=100"); err != nil || status != 200 {
		t.Fatalf("runtime_modify: %d %s %v", status, raw, err)
	}
	put("routes/refused", direct("refused", map[string]any{"path": map[string]any{"regex": "/[a-z]{1,300}"}}))
	nc, err := nats.Connect(natsURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		c := probe.New(s.Proxy)
		defer c.Close()
		for {
			_, _, _ = c.Get("dead.test", "/") // 503
			if req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.API+"/v1/routes", nil); err == nil {
				req.Header.Set("Authorization", "Bearer wrong")
				if resp, err := http.DefaultClient.Do(req); err == nil {
					_ = resp.Body.Close()
				}
			}
			report, _ := json.Marshal(map[string]any{
				"id": "elsewhere",
				"at": time.Now().Add(-time.Minute).UTC().Format(time.RFC3339Nano),
			})
			_ = nc.Publish("marchproxy.status.v1.agent.elsewhere", report) // a node whose clock is behind
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	p.fires(t, "MarchProxyNATSDisconnected", "MarchProxyStale", "MarchProxyCertificateExpires",
		"MarchProxyCertificateExpired", "MarchProxyCertificateNotIssued", "MarchProxyNameUnresolved",
		"MarchProxyErrors", "MarchProxyConfigurationRefused", "MarchProxyCredentialsRefused", "MarchProxyClockOffset")
	close(stop)
	busy.Wait()
	f, err := s.Forcer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close(t.Context()) })
	if err := f.Exec(t.Context(), `UPDATE issuance SET renew_at = now() - interval '2 hours'`); err != nil {
		t.Fatal(err)
	}
	p.fires(t, "MarchProxyCertificateRenewalOverdue")

	// A container comes that may not be written, and its engine goes.
	engine.add()
	p.fires(t, "MarchProxyDiscoverPending", "MarchProxyDiscoverProblems")
	engine.CloseClientConnections()
	engine.Close()
	p.fires(t, "MarchProxyDiscoverSourceDown")

	// One that stays connected answers nothing. The stream of an Envoy that hangs ends after some seconds.
	clusterKey, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	mute := fanout.Start(t.Context(), fanout.Options{Addr: s.GRPC, Key: clusterKey, Clients: 3, Hung: 2})
	t.Cleanup(mute.Close)
	if err := mute.Await(map[translate.Type]int{translate.TypeListener: 1}, false, time.Minute); err != nil {
		t.Fatal(err)
	}
	mute.Hang()
	put("routes/unanswered", direct("unanswered", nil))
	p.fires(t, "MarchProxyProxyLagging")

	// An Envoy hangs, another one is gone.
	envoy := s.Pid("envoy")
	if err := syscall.Kill(envoy, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(envoy, syscall.SIGCONT) }) // so that the system can be stopped
	put("routes/late", direct("late", nil))
	p.fires(t, "MarchProxyNotLive", "MarchProxyDown")
	if err := syscall.Kill(envoy, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = well.Stop(syscall.SIGKILL) // it ends by the signal
	p.fires(t, "MarchProxyEnvoyGone")

	// Somebody else writes to the stream, while no api repairs it.
	api := s.Pid("api")
	if err := syscall.Kill(api, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(api, syscall.SIGCONT) })
	tamper(t, s)
	p.fires(t, "MarchProxyHashMismatch")
	if err := syscall.Kill(api, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}

	for part, names := range map[string][]string{
		"nats": {"MarchProxyStreamTrouble", "MarchProxyRelayLag"}, "postgres": {
			"MarchProxyDatabaseTrouble",
			"MarchProxyAPIErrors",
		},
	} {
		if err := s.Down(t.Context(), func() error {
			// A rate needs a figure before and after: what fails once, before the first scrape, is none.
			stop := make(chan struct{})
			var busy sync.WaitGroup
			busy.Go(func() {
				for {
					_, _, _ = s.Call(t.Context(), "PUT", s.API+"/v1/routes/"+part, direct(part, nil)) // it fails, or is late
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
					}
				}
			})
			defer busy.Wait()
			defer close(stop)
			p.fires(t, names...)
			return nil
		}, part); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range alerts(t) {
		if _, never := byUnitTest[a.Alert]; !p.fired[a.Alert] && !never {
			t.Errorf("%s has not fired", a.Alert)
		}
	}
}

// tamper adds a commit whose hash nothing has.
func tamper(t *testing.T, s *harness.System) {
	t.Helper()
	js := s.JetStream(t)
	st, err := js.Stream(t.Context(), "MARCHPROXY_CONFIG")
	if err != nil {
		t.Fatal(err)
	}
	m, err := st.GetLastMsgForSubject(t.Context(), "marchproxy.config.v1.revision")
	if err != nil {
		t.Fatal(err)
	}
	commit := map[string]any{}
	if err := json.Unmarshal(m.Data, &commit); err != nil {
		t.Fatal(err)
	}
	commit["revision"] = commit["revision"].(float64) + 1
	commit["state"].(map[string]any)["Route"].(map[string]any)["count"] = 1000
	raw, err := json.Marshal(commit)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), m.Subject, raw); err != nil {
		t.Fatal(err)
	}
}
