package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// site is a backend somewhere, that can die and come back at the same address.
type site struct {
	t    *testing.T
	at   locality.Place
	port int
	srv  *httptest.Server
	// began is told of a request to /slow, which waits until slow is closed.
	began, slow chan struct{}
	mu          sync.Mutex
	// ill has its health check fail, while it answers all else.
	ill bool
	// delay is how long every answer takes.
	delay time.Duration
}

func newSite(t *testing.T, cloud, zone string) *site {
	s := &site{
		t: t, at: locality.Place{Cloud: cloud, Zone: zone}, began: make(chan struct{}, 16), slow: make(chan struct{}),
	}
	s.live()
	t.Cleanup(s.die)
	return s
}

func (s *site) name() string { return s.at.Cloud + "/" + s.at.Zone }

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	ill, delay := s.ill, s.delay
	s.mu.Unlock()
	time.Sleep(delay) // it is what is measured
	switch {
	case r.URL.Path == "/healthz" && ill:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/slow":
		s.began <- struct{}{}
		<-s.slow
	}
	_, _ = io.WriteString(w, s.name())
}

func (s *site) setIll(ill bool) {
	s.mu.Lock()
	s.ill = ill
	s.mu.Unlock()
}

func (s *site) live() {
	s.t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	s.srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: s}}
	s.srv.Start()
}

// die ends it at once, as a machine does that loses its power.
func (s *site) die() {
	if s.srv != nil {
		_ = s.srv.Listener.Close() // what it says is of no interest to a machine without power
		s.srv.CloseClientConnections()
		s.srv = nil
	}
}

func (s *site) endpoint() object {
	return object{"host": "127.0.0.1", "port": s.port, "cloud": s.at.Cloud, "zone": s.at.Zone}
}

// crowd is a load of several connections on a proxy, until it is stopped.
type crowd struct {
	stop func()
	mu   sync.Mutex
	// answers counts bodies, failures are when requests failed, and as what.
	answers  map[string]int
	failures []failure
}

type failure struct {
	at   time.Time
	what string
}

// connections is how many a crowd has, each of which has one request at a time.
const connections = 4

// crowdOn sends so many requests a second to a host.
func crowdOn(t *testing.T, proxy, host string, perSecond int) *crowd {
	ctx, cancel := context.WithCancel(t.Context())
	out := &crowd{answers: map[string]int{}}
	var all sync.WaitGroup
	for range connections {
		all.Go(func() {
			c := probe.New(proxy)
			defer c.Close()
			tick := time.NewTicker(time.Second * connections / time.Duration(perSecond))
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				a, _, err := c.Get(host, "/")
				out.mu.Lock()
				switch {
				case err != nil:
					out.failures = append(out.failures, failure{time.Now(), err.Error()})
				case a.Status != http.StatusOK:
					out.failures = append(out.failures, failure{time.Now(), fmt.Sprint(a.Status, " ", a.Body)})
				default:
					out.answers[a.Body]++
				}
				out.mu.Unlock()
			}
		})
	}
	out.stop = sync.OnceFunc(func() {
		cancel()
		all.Wait()
	})
	t.Cleanup(out.stop)
	return out
}

// take is what there was since the last call.
func (l *crowd) take() (answers map[string]int, failures []failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answers, failures = l.answers, l.failures
	l.answers, l.failures = map[string]int{}, nil
	return answers, failures
}

// of is how many answers there were from one since the last take.
func (l *crowd) of(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[name]
}

// answersOf asks n times and counts the answers.
func answersOf(t *testing.T, proxy, host string, n int) map[string]int {
	t.Helper()
	c := probe.New(proxy)
	defer c.Close()
	out := map[string]int{}
	for range n {
		a, _, err := c.Get(host, "/")
		if err != nil {
			t.Fatal(err)
		}
		if a.Status != http.StatusOK {
			a.Body = fmt.Sprint(a.Status)
		}
		out[a.Body]++
	}
	return out
}

// only waits until a proxy's answers come from these alone, and from all of them.
func only(t *testing.T, proxy, host string, names ...string) {
	t.Helper()
	eventually(t, func() string {
		got := answersOf(t, proxy, host, 40)
		if have := slices.Sorted(maps.Keys(got)); !slices.Equal(have, names) {
			return fmt.Sprintf("%s: answers %v, want those of %v", host, got, names)
		}
		return ""
	})
}

// retriesOf reads how many requests to a service an Envoy has tried again.
func retriesOf(t *testing.T, e edge, service string) func() int64 {
	admin := envoyadmin.New(strings.TrimPrefix(e.admin, "http://"))
	return func() int64 {
		t.Helper()
		stat := "cluster." + service + ".upstream_rq_retry"
		status, raw, err := admin.Do(t.Context(), "GET", "/stats?filter=^"+strings.ReplaceAll(stat, ".", "\\.")+"$")
		text, found := strings.CutPrefix(string(raw), stat+": ")
		n, wrong := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil || status != 200 || !found || wrong != nil {
			t.Fatalf("retries: %d %s %v", status, raw, err)
		}
		return n
	}
}

// TestLocality: Envoys send requests to what is near, by where each is; a cloud whose endpoints die loses its requests
// to another one, and only those fail that it had been sent; where nothing is healthy all is tried; shares are what was asked for;
// and a drain loses no request.
func TestLocality(t *testing.T) {
	s := start(t, "--no-demo")
	// Two gateways with an Envoy each, so that each can be asked: one in a zone of aws, and dev's, which is nowhere.
	near := startEdge(t, s, "NODE_CLOUD=aws", "NODE_ZONE=a")
	if err := near.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	a, b, g := newSite(t, "aws", "a"), newSite(t, "aws", "b"), newSite(t, "gcp", "c")
	put := func(name string, spec object) object {
		t.Helper()
		return call(t, s, "POST", s.API+"/v1/apply?wait=live&timeout=30s", object{"resources": []any{
			object{"kind": "Service", "name": name, "spec": spec},
			object{"kind": "Route", "name": name, "spec": object{
				"hosts": []string{name + ".example.com"}, "gateways": []string{"default", "edge"},
				"backends": []any{object{"service": name}},
			}},
		}}, 200)
	}
	endpoints := []any{a.endpoint(), b.endpoint(), g.endpoint()}
	const interval = time.Second
	checks := object{"http": object{"path": "/healthz"}, "interval": "1s", "timeout": "0.5s", "unhealthy_threshold": 1}
	put("near", object{
		"endpoints": endpoints, "health_check": checks, "locality": object{"prefer": "zone"},
	})
	put("ejects", object{
		"endpoints": endpoints, "health_check": checks, "locality": object{"prefer": "zone"},
		"outlier_detection": object{"consecutive_gateway_failure": 3, "max_ejection_percent": 100},
	})
	put("split", object{
		"endpoints": endpoints, "locality": object{"split": []any{
			object{"place": object{"cloud": "aws"}, "weight": 70}, object{"place": object{"cloud": "gcp"}, "weight": 30},
		}},
	})
	put("plain", object{"endpoints": endpoints})

	t.Run("near", func(t *testing.T) {
		only(t, near.proxy, "near.example.com", "aws/a")
		only(t, s.Proxy, "near.example.com", "aws/a", "aws/b", "gcp/c")
		// Another Envoy of the same gateway, elsewhere.
		admin := anotherEnvoy(t, s, bootstrap.Config{
			NodeID: "elsewhere", Gateway: "edge", XDSServer: s.GRPC, Place: locality.Place{Cloud: "gcp", Zone: "z"},
		})
		eventually(t, func() string {
			_, raw, err := s.Call(t.Context(), "GET", admin+"/clusters", nil)
			if err != nil {
				return err.Error()
			}
			for site, priority := range map[*site]int{g: 0, a: 1, b: 1} {
				want := fmt.Sprintf("near::127.0.0.1:%d::priority::%d\n", site.port, priority)
				if !strings.Contains(string(raw), want) {
					return fmt.Sprintf("an Envoy in gcp has not %s", want)
				}
			}
			return ""
		})
	})

	t.Run("split", func(t *testing.T) {
		const n = 2000
		got := answersOf(t, near.proxy, "split.example.com", n)
		share := float64(got["gcp/c"]) / n * 100
		t.Logf("%v: %.1f %% for the 30 %% that were asked for", got, share)
		if share < 28 || share > 32 {
			t.Errorf("%.1f %% of the requests went to gcp, want 30 within 2", share)
		}
	})

	for what, host := range map[string]string{
		"a cloud dies, by checks": "near.example.com", "a cloud dies, by answers": "ejects.example.com",
	} {
		t.Run(what, func(t *testing.T) {
			only(t, near.proxy, host, "aws/a")
			load := crowdOn(t, near.proxy, host, 400)
			time.Sleep(interval) // the load is under way, and none of it may fail
			if _, failed := load.take(); len(failed) > 0 {
				t.Fatalf("before anything died: %v", failed[0])
			}
			retries := retriesOf(t, near, strings.TrimSuffix(host, ".example.com"))
			died := time.Now()
			a.die()
			b.die()
			// Nothing may fail but at the beginning; the checks find the cloud dead meanwhile. A slow machine takes longer for
			// as many answers.
			noticed := died
			const enough = 400
			for before := retries(); time.Since(died) < 4*interval || load.of("gcp/c") < enough; {
				if time.Since(died) > time.Minute {
					t.Fatalf("gcp/c has given %d answers in a minute", load.of("gcp/c"))
				}
				if now := retries(); now != before {
					before, noticed = now, time.Now()
				}
				time.Sleep(10 * time.Millisecond) // each look costs Envoy something
			}
			load.stop()
			answers, failed := load.take()
			last := died
			for _, f := range failed {
				last = f.at
			}
			t.Logf("%d failed, the last one %v after the death; the last one that was tried again after %v; then %v", len(failed),
				last.Sub(died), noticed.Sub(died), answers)
			// docs/benchmarks.md has the promise.
			if last.Sub(died) > interval {
				t.Errorf("the last request failed %v after the cloud died: %v", last.Sub(died), failed[len(failed)-1])
			}
			// One of each connection may have been on its way, and had an effect.
			if len(failed) > connections {
				t.Errorf("%d requests failed, of which %d can have been at an endpoint: %v", len(failed), connections, failed)
			}
			// An endpoint is checked an interval after its last answer; the rest is for a machine that others use.
			if noticed.Equal(died) || noticed.Sub(died) > 2*interval {
				t.Errorf("requests were tried again for %v", noticed.Sub(died))
			}
			a.live()
			b.live()
			only(t, near.proxy, host, "aws/a")
		})
	}

	t.Run("nothing is healthy", func(t *testing.T) {
		for _, x := range []*site{a, b, g} {
			x.setIll(true)
		}
		only(t, near.proxy, "near.example.com", "aws/a", "aws/b", "gcp/c")
		for _, x := range []*site{a, b, g} {
			x.setIll(false)
		}
		only(t, near.proxy, "near.example.com", "aws/a")
	})

	t.Run("drain", func(t *testing.T) { drainsAPlace(t, s, near, a) })
}

// drainsAPlace drains the zone of a site by one command under load, and takes that back by another.
func drainsAPlace(t *testing.T, s *harness.System, near edge, a *site) {
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	revision := func() float64 { return call(t, s, "GET", s.API+"/v1/status", nil, 200)["revision"].(float64) }
	hosts := []string{"near.example.com", "plain.example.com", "split.example.com"}
	var loads []*crowd
	for _, host := range hosts {
		loads = append(loads, crowdOn(t, near.proxy, host, 200))
	}
	finished := make(chan string, 1)
	go func() {
		p := probe.New(near.proxy)
		defer p.Close()
		answer, _, err := p.Get("near.example.com", "/slow")
		finished <- fmt.Sprint(answer.Status, " ", answer.Body, " ", err)
	}()
	select {
	case <-a.began:
	case <-time.After(10 * time.Second):
		t.Fatal("the slow request has not come to aws/a after 10 s")
	}
	before, clusters := revision(), clusterStats(t, s)
	c.says(c.text("drain", "--cloud", "aws", "--zone", "a", "--reason", "power works", "--wait"), "live on")
	time.Sleep(100 * time.Millisecond) // for the answers to what was on its way
	for i, l := range loads {
		if _, failed := l.take(); len(failed) > 0 {
			t.Errorf("%s: a drain has failed %d requests: %v", hosts[i], len(failed), failed[0])
		}
	}
	time.Sleep(time.Second) // for requests that must not come to the zone
	for i, l := range loads {
		answers, failed := l.take()
		if len(failed) > 0 {
			t.Errorf("%s: a drain has failed %d requests: %v", hosts[i], len(failed), failed[0])
		}
		if answers["aws/a"] > 0 || len(answers) == 0 {
			t.Errorf("%s: while aws/a is drained: %v", hosts[i], answers)
		}
	}
	close(a.slow)
	if got := <-finished; got != "200 aws/a <nil>" {
		t.Errorf("the request that aws/a had when it was drained: %s", got)
	}
	c.says(c.text("status"), "DRAINED", "cloud aws, zone a", "power works")
	c.says(c.text("drain", "--cloud", "aws", "--zone", "a", "--reason", "power works"), "nothing to do")

	call(t, s, "PATCH", s.API+"/v1/services/plain", object{"labels": object{"a": "b"}}, 200)
	call(t, s, "POST", fmt.Sprintf("%s/v1/revisions/%.0f/rollback?wait=live", s.API, before), nil, 200)
	c.says(c.text("status"), "cloud aws, zone a")
	if all := c.text("export"); strings.Contains(all, "LocalityDrain") {
		t.Errorf("an export has a drain:\n%s", all)
	}

	for place, want := range map[string]string{"nowhere": "no service has an endpoint", "gcp": ""} {
		answer := call(t, s, "PUT", s.API+"/v1/locality-drains/more?dry_run=true",
			object{"spec": object{"cloud": place}}, 200)
		if got := fmt.Sprint(answer["warnings"]); !strings.Contains(got, want) || want == "" && answer["warnings"] != nil {
			t.Errorf("a dry run of draining %s warns: %s", place, got)
		}
	}
	refused := call(t, s, "PUT", s.API+"/v1/locality-drains/none", object{"spec": object{"reason": "none"}}, 422)
	if got := fmt.Sprint(refused); !strings.Contains(got, "give cloud, region or zone") {
		t.Errorf("a drain of no place: %s", got)
	}
	c.says(c.text("undrain", "--cloud", "aws", "--zone", "a", "--wait"), "deleted LocalityDrain/")
	only(t, near.proxy, "near.example.com", "aws/a")
	if got := revision(); got != before+4 {
		t.Errorf("%v revisions for a drain, a change, a rollback and an undrain", got-before)
	}
	if now := clusterStats(t, s); now != clusters {
		t.Errorf("a drain changed a cluster:\n%sbefore\n%s", now, clusters)
	}
	for i, l := range loads {
		l.stop()
		if _, failed := l.take(); len(failed) > 0 {
			t.Errorf("%s: %d failed: %v", hosts[i], len(failed), failed[0])
		}
	}
	var audited []string
	for _, x := range call(t, s, "GET", s.API+"/v1/audit?kind=LocalityDrain", nil, 200)["items"].([]any) {
		audited = append(audited, fmt.Sprint(x.(object)["action"]))
	}
	if !slices.Equal(audited, []string{"delete", "create"}) {
		t.Errorf("the audit of the drain has %v", audited)
	}
}

// anotherEnvoy runs an Envoy, and returns its admin interface.
func anotherEnvoy(t *testing.T, s *harness.System, c bootstrap.Config) string {
	t.Helper()
	path, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	admin := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	c.AdminAddr = admin
	if c.APIKey, err = s.ClusterKey(); err != nil {
		t.Fatal(err)
	}
	raw, err := bootstrap.Render(c)
	if err != nil {
		t.Fatal(err)
	}
	boot := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(boot, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, exec.CommandContext(context.WithoutCancel(t.Context()), path, "-c", boot, "--concurrency", "1",
		"--disable-hot-restart", "--log-level", "error"))
	return "http://" + admin
}
