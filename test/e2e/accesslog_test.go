package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/accesslog"
	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/measure"
	"github.com/marchproxy/marchproxy/test/probe"
)

// watcher reads GET /v1/access-log.
type watcher struct {
	mu      sync.Mutex
	entries []api.AccessLogEntry
	at      []time.Time // when each was read
	state   api.AccessLogState
	stop    func()
}

// watch begins to watch with a token, and returns when Envoys tell.
func watch(t *testing.T, s *harness.System, token string, query url.Values) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.API+"/v1/access-log?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(resp.Body) // what there is of it is shown
		t.Fatalf("%d %s", resp.StatusCode, raw)
	}
	w, ended := &watcher{}, make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { _ = resp.Body.Close() }()
		lines, kind := bufio.NewScanner(resp.Body), ""
		for lines.Scan() {
			line := lines.Bytes()
			if name, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
				kind = string(name)
			}
			data, ok := bytes.CutPrefix(line, []byte("data: "))
			if !ok {
				continue
			}
			w.mu.Lock()
			if kind == "entry" {
				var e api.AccessLogEntry
				if err := json.Unmarshal(data, &e); err != nil {
					t.Errorf("%s: %v", data, err)
				}
				w.entries, w.at = append(w.entries, e), append(w.at, time.Now())
			} else if err := json.Unmarshal(data, &w.state); err != nil {
				t.Errorf("%s: %v", data, err)
			}
			w.mu.Unlock()
		}
	}()
	w.stop = func() { cancel(); <-ended }
	t.Cleanup(w.stop)
	return w
}

// says is what Envoys tell now.
func (w *watcher) says() api.AccessLogState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// of are the entries with a path, and when the first one was read.
func (w *watcher) of(path string) (out []api.AccessLogEntry, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, e := range w.entries {
		if e.Path == path {
			if out = append(out, e); at.IsZero() {
				at = w.at[i]
			}
		}
	}
	return out, at
}

func (w *watcher) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.entries)
}

// tells waits until an Envoy tells.
func (w *watcher) tells(t *testing.T, n int32) {
	t.Helper()
	eventually(t, func() string {
		if got := w.says(); got.Proxies != n {
			return fmt.Sprintf("%+v, want %d Envoys that tell", got, n)
		}
		return ""
	})
}

// tailKeys are the runtime's keys of the tail in an Envoy.
func tailKeys(t *testing.T, s *harness.System) string {
	t.Helper()
	status, raw, err := s.AdminSocket().Do(t.Context(), "GET", "/runtime")
	if err != nil || status != 200 {
		t.Fatalf("%d %s %v", status, raw, err)
	}
	var doc struct {
		Entries map[string]struct {
			Final string `json:"final_value"`
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Entries["marchproxy.access_log_tail"].Final + "/" +
		doc.Entries["marchproxy.access_log_tail_min_status"].Final
}

// asleep waits until the Envoy does nothing for who watches.
func asleep(t *testing.T, s *harness.System) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, func() string {
		if keys := tailKeys(t, s); keys != "/" {
			return "the Envoy still has " + keys
		}
		return ""
	})
	return time.Since(began)
}

// TestAccessLogTail: requests are told of within a second of their answer, those that are asked for and no others,
// without queries and tokens; the Envoy is asleep before somebody watches and after, and no listener changes; with bounds
// one sees what is within them, also after they were changed.
func TestAccessLogTail(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	admin, err := s.Token()
	if err != nil {
		t.Fatal(err)
	}
	shop := direct("shop", "shop", nil)
	shop["owner"] = "team/web"
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{
		shop, direct("other", "other", object{"direct_response": object{"status": 503, "body": "no"}}),
	}}, 200)
	ask := func(host, path string) time.Time {
		t.Helper()
		p := probe.New(s.Proxy)
		defer p.Close()
		if _, _, err := p.Get(host, path, "authorization: Bearer sentinel-token", "cookie: sentinel-cookie",
			"user-agent: the test"); err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}
	if keys := tailKeys(t, s); keys != "/" {
		t.Errorf("nobody watches, and the Envoy has %s", keys)
	}
	ask("shop.example.com", "/before")
	before := listenerStats(t, s)

	// What an entry says, and how soon.
	all := watch(t, s, admin, nil)
	all.tells(t, 1)
	var late []time.Duration
	for i := range 5 {
		path := fmt.Sprintf("/all-%d", i)
		answered := ask("shop.example.com", path+"?key=sentinel-query")
		eventually(t, func() string {
			if got, _ := all.of(path); len(got) != 1 {
				return fmt.Sprintf("%s is told of %d times", path, len(got))
			}
			return ""
		})
		_, at := all.of(path)
		late = append(late, at.Sub(answered))
		if d := at.Sub(answered); d > racetest.Deadline(time.Second) {
			t.Errorf("%s was told of %v after its answer", path, d)
		}
	}
	t.Logf("told of %v after the answer", late)
	got, _ := all.of("/all-0")
	e := got[0]
	if e.Method != http.MethodGet || e.Host != "shop.example.com" || e.Status != 200 || e.Route != "shop" || e.Gateway != "default" ||
		e.Proxy == "" || e.Listener != "http" || e.UserAgent != "the test" || e.Client == "" || e.Time == "" ||
		e.Share != 1 || e.Scheme != "http" || e.BytesSent == 0 {
		t.Errorf("%+v", e)
	}
	all.mu.Lock()
	raw, err := json.Marshal(all.entries)
	all.mu.Unlock()
	if err != nil || bytes.Contains(raw, []byte("sentinel")) || bytes.Contains(raw, []byte("/before")) {
		t.Errorf("%s %v", raw, err)
	}

	// Filters, each of them alone.
	for _, c := range []struct {
		query       url.Values
		shop, other int
	}{
		{url.Values{"host": {"shop.example.com"}}, 1, 0},
		{url.Values{"host": {"*.EXAMPLE.com"}}, 1, 1},
		{url.Values{"route": {"other"}}, 0, 1},
		{url.Values{"status": {"404,5xx"}}, 0, 1},
		{url.Values{"status": {"200"}}, 1, 0},
		{url.Values{"method": {"post"}}, 0, 0},
		{url.Values{"method": {"get"}, "path": {"/fil"}}, 1, 1},
		{url.Values{"path": {"/nothing"}}, 0, 0},
		{url.Values{"gateway": {"default"}, "proxy": {e.Proxy}}, 1, 1},
		{url.Values{"gateway": {"another"}}, 0, 0},
	} {
		some := watch(t, s, admin, c.query)
		if c.query.Get("gateway") != "another" {
			some.tells(t, 1)
		}
		path := "/filter-" + strings.NewReplacer("&", "-", "=", "-", "%2A", "", "%2F", "", "%2C", "").Replace(c.query.Encode())
		ask("shop.example.com", path)
		ask("other.example.com", path)
		eventually(t, func() string { // the one without a filter has both
			if got, _ := all.of(path); len(got) != 2 {
				return fmt.Sprintf("%s is told of %d times", path, len(got))
			}
			return ""
		})
		eventually(t, func() string {
			got, _ := some.of(path)
			n := map[string]int{}
			for _, e := range got {
				n[e.Route]++
			}
			if n["shop"] != c.shop || n["other"] != c.other {
				return fmt.Sprintf("%v: %v, want %d and %d", c.query, n, c.shop, c.other)
			}
			return ""
		})
		some.stop()
	}

	// Bounds.
	for name, c := range map[string]struct {
		bounds      object
		shop, other int
	}{
		"a": {object{"hosts": []any{"shop.example.com"}}, 1, 0},
		"b": {object{"gateways": []any{"another"}}, 0, 0},
		"c": {object{"gateways": []any{"default"}}, 1, 1},
		"d": {object{"owners": []any{"team"}}, 1, 0},
	} {
		made := call(t, s, "POST", s.API+"/v1/tokens", object{"name": name, "role": "viewer", "bounds": c.bounds}, 201)
		bound := watch(t, s, made["token"].(string), nil)
		if name != "b" { // for which there is no Envoy
			bound.tells(t, 1)
		}
		path := "/bounds-" + name
		ask("shop.example.com", path)
		ask("other.example.com", path)
		ask("nobody.example.com", path)
		eventually(t, func() string {
			if got, _ := all.of(path); len(got) != 3 {
				return fmt.Sprintf("%s is told of %d times", path, len(got))
			}
			return ""
		})
		ask("shop.example.com", path+"-last")
		eventually(t, func() string {
			if got, _ := all.of(path + "-last"); len(got) != 1 {
				return "the last one is not there"
			}
			got, _ := bound.of(path)
			n := map[string]int{}
			for _, e := range got {
				n[e.Route]++
			}
			if n["shop"] != c.shop || n["other"] != c.other {
				return fmt.Sprintf("%v: %v, want %d and %d", c.bounds, n, c.shop, c.other)
			}
			return ""
		})
		bound.stop()
	}

	// The command line says the same.
	out, say := io.Pipe()
	cmd := s.CLI(t.Context(), "logs", "--host", "shop.example.com", "-o", "json")
	cmd.Stdout = say
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	told := make(chan string, 1)
	go func() {
		if lines.Scan() {
			told <- lines.Text()
		}
	}()
	var line string
	eventually(t, func() string {
		ask("shop.example.com", "/cli") // until it watches
		select {
		case line = <-told:
			return ""
		case <-time.After(200 * time.Millisecond):
			return "marchproxy logs prints nothing"
		}
	})
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Path != "/cli" {
		t.Errorf("%s %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = say.CloseWithError(cmd.Wait()) // it was killed

	if after := listenerStats(t, s); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("watching changed a listener: %v, before %v", after, before)
	}
	all.stop()
	if d := asleep(t, s); d > racetest.Deadline(2*time.Second) {
		t.Errorf("the Envoy was awake for %v after the last one had left", d)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "tail.sock")); err != nil {
		t.Error(err)
	}

	// An api that is killed leaves nothing on.
	again := watch(t, s, admin, url.Values{"status": {"404,5xx"}})
	again.tells(t, 1)
	if keys := tailKeys(t, s); keys != "1000000/404" {
		t.Errorf("while somebody watches failures the Envoy has %s", keys)
	}
	s.Kill("api")
	again.stop()
	t.Logf("the Envoy was asleep %v after its api was killed", asleep(t, s))
}

// TestAccessLogOfAgents: the Envoys of several gateways and of who runs them are watched together or one by one, a
// viewer who is bound to a gateway sees no other's, and an Envoy whose agent says nothing is told to be silent.
func TestAccessLogOfAgents(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "1")
	admin, err := s.Token()
	if err != nil {
		t.Fatal(err)
	}
	nats, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	e := startEdge(t, s, "NODE_ID=edge-1", "AGENT_ID=edge-1", "NATS_URL="+nats, "MARCHPROXY_STATE_DIR="+t.TempDir())
	if err := e.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{
		direct("shop", "shop", object{"gateways": []any{"default", "edge"}}),
	}}, 200)
	made := call(t, s, "POST", s.API+"/v1/tokens", object{
		"name": "edge", "role": "viewer", "bounds": object{"gateways": []any{"edge"}},
	}, 201)
	all, one := watch(t, s, admin, nil), watch(t, s, admin, url.Values{"proxy": {"edge-1"}})
	bound := watch(t, s, made["token"].(string), nil)
	all.tells(t, 2)
	one.tells(t, 1)
	bound.tells(t, 1)
	for _, addr := range []string{s.Proxy, e.proxy} {
		p := probe.New(addr)
		defer p.Close()
		if a, _, err := p.Get("shop.example.com", "/both"); err != nil || a.Status != 200 {
			t.Fatalf("%+v %v", a, err)
		}
	}
	for w, want := range map[*watcher]string{
		all: "default/marchproxy-node edge/edge-1", one: "edge/edge-1", bound: "edge/edge-1",
	} {
		eventually(t, func() string {
			var got []string
			entries, _ := w.of("/both")
			for _, x := range entries {
				got = append(got, x.Gateway+"/"+x.Proxy)
			}
			slices.Sort(got)
			if got := strings.Join(got, " "); got != want {
				return fmt.Sprintf("told of are %q, want %q", got, want)
			}
			return ""
		})
	}
	if err := e.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if got := all.says(); got.Proxies != 1 || got.Silent != 1 {
			return fmt.Sprintf("the agent hangs, and what is said is %+v", got)
		}
		return ""
	})
	if err := e.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	all.tells(t, 2)
}

// TestAccessLogUnderLoad: a proxy with thousands of requests a second tells of a share of them that a reader can follow,
// says which, and is about as fast as when nobody watches.
func TestAccessLogUnderLoad(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "1")
	admin, err := s.Token()
	if err != nil {
		t.Fatal(err)
	}
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{direct("shop", "shop", nil)}}, 200)
	ctx, stop := context.WithCancel(t.Context())
	var answered atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			p := probe.New(s.Proxy)
			defer p.Close()
			for ctx.Err() == nil {
				if a, _, err := p.Get("shop.example.com", "/load"); err != nil || a.Status != 200 {
					t.Errorf("%+v %v", a, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	defer load.Wait()
	defer stop()
	cpu := func() int64 {
		n, err := measure.CPU(s.Pid("envoy"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	// The rate of requests, and how many microseconds of CPU each takes Envoy: others may use the machine.
	rate := func(d time.Duration) (float64, float64) {
		n, used, began := answered.Load(), cpu(), time.Now()
		time.Sleep(d) // it is what is measured
		n = answered.Load() - n
		return float64(n) / time.Since(began).Seconds(), float64(cpu()-used) / float64(n) / 1000
	}
	var without, with, dear, told float64
	const rounds, each = 3, 3 * time.Second
	for range rounds {
		alone, cheap := rate(each)
		without += alone / rounds
		w := watch(t, s, admin, nil)
		w.tells(t, 1)
		time.Sleep(2 * time.Second) // the share has found its place
		n := w.count()
		r, dearer := rate(each)
		dear += dearer / cheap / rounds
		here := float64(w.count()-n) / each.Seconds()
		with, told = with+r/rounds, told+here/rounds
		w.mu.Lock()
		stands := 0.0
		for _, e := range w.entries[n:] {
			stands += 1 / e.Share
		}
		w.mu.Unlock()
		t.Logf("%.0f requests/s of %.1f µs; watched %.0f of %.1f µs, %.0f told of, state %+v; they stand for %.0f requests/s",
			alone, cheap, r, dearer, here, w.says(), stands/each.Seconds())
		if share := w.says().Share; here > 1.5*accesslog.MaxRate || share >= 1 && r > 2*accesslog.MaxRate {
			t.Errorf("of %.0f requests a second %.0f are told of, with the share %v", r, here, share)
		}
		if est := stands / each.Seconds(); est < r/2 || est > r*2 {
			t.Errorf("what is shown stands for %.0f requests a second, of %.0f", est, r)
		}
		w.stop()
		asleep(t, s)
	}
	t.Logf("%.0f requests/s without a watcher, %.0f with one (%.2f), of which %.0f are told; Envoy's CPU a request %.2f ×",
		without, with, with/without, told, dear)
	if dear > 1.5 {
		t.Errorf("a watcher makes a request %.2f times as dear", dear)
	}
}
