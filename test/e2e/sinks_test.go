package e2e

import (
	"crypto/tls"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/marchproxy/marchproxy/test/collector"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/measure"
	"github.com/marchproxy/marchproxy/test/probe"
)

// collect starts a collector, with TLS where there is a certificate for it.
func collect(t *testing.T, own *tls.Certificate) *collector.Collector {
	t.Helper()
	var creds credentials.TransportCredentials
	if own != nil {
		creds = credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{*own}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
		})
	}
	c, err := collector.Start(t.Context(), creds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// collects is a Service of a collector.
func collects(name string, c *collector.Collector, more object) object {
	spec := object{"protocol": "grpc", "endpoints": []any{c.Endpoint()}}
	maps.Copy(spec, more)
	return object{"kind": "Service", "name": name, "spec": spec}
}

// inFile are the lines of a file with a path.
func inFile(file, path string) (out []string) {
	raw, _ := os.ReadFile(file) // one that is not there has none
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, `"path":"`+path+`"`) {
			out = append(out, line)
		}
	}
	return out
}

// TestSinks: entries of the access log go to a file, by OTLP and by ALS, one by one or together, as soon as the write has
// returned and on a connection that was there before; no listener changes, and neither does one where a sink is led to
// another service, here one with TLS, which takes over within moments. A share of the requests is one of them.
func TestSinks(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	a := newAuthority(t)
	chain, key := a.issue(t, "logs.example.com")
	own, err := tls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	plain, secure := collect(t, nil), collect(t, &own)
	apiKeys := keys(t, s)
	set := func(log object) {
		t.Helper()
		log["fields"] = object{"mark": "%REQ(x-mark)%"}
		spec := object{
			"api_keys": apiKeys, "access_log": log, "listeners": []any{object{"name": "http", "port": s.ProxyPort}},
		}
		answer := call(t, s, "PUT", s.API+"/v1/gateways/default?wait=live", object{"spec": spec}, 200)
		if l := answer["live"].(map[string]any); l["state"] != "live" {
			t.Fatal(l)
		}
	}
	none := func() object { return object{"percent": 0} }
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{
		object{"kind": "Certificate", "name": "ca", "spec": object{"chain": a.PEM}},
		collects("plain", plain, nil), collects("secure", secure, object{"tls": object{
			"sni": "logs.example.com", "ca_certificate": "ca",
		}}),
		direct("a", "a", nil),
	}}, 200)
	set(object{"stdout": none()}) // the field is another one from here on, which drains
	kept := probe.New(s.Proxy)
	defer kept.Close()
	n := 0
	ask := func() string {
		t.Helper()
		n++
		path := fmt.Sprintf("/request-%d", n)
		got, reused, err := kept.Get("a.example.com", path, "x-mark: "+path)
		if err != nil || got.Status != 200 || (n > 1 && !reused) {
			t.Errorf("%s: %d %v, reused %t", path, got.Status, err, reused)
		}
		return path
	}
	file := filepath.Join(s.Dir, "log", "access.log")
	// where says which sinks have an entry, and how many.
	where := func(path string) string {
		var out []string
		for _, sink := range []struct {
			name string
			n    int
		}{
			{"stdout", len(logged(t, s, path))},
			{"file", len(inFile(file, path))}, // Envoy was asked to write
			{"otlp plain", len(plain.OTLP(path))},
			{"otlp secure", len(secure.OTLP(path))},
			{"grpc plain", len(plain.GRPC(path))},
			{"grpc secure", len(secure.GRPC(path))},
		} {
			switch sink.n {
			case 0:
			case 1:
				out = append(out, sink.name)
			default:
				out = append(out, fmt.Sprintf("%s %d times", sink.name, sink.n))
			}
		}
		return strings.Join(out, ", ")
	}
	ask()
	before := listenerStats(t, s)
	want, elsewhere := map[string]string{}, map[string]string{}
	for range 2 {
		for _, c := range []struct {
			log  object
			want string
		}{
			{object{"stdout": none()}, ""},
			{object{}, "stdout"},
			{object{"stdout": none(), "file": object{}}, "file"},
			{object{"stdout": none(), "otlp": object{"service": "plain"}}, "otlp plain"},
			{object{"stdout": none(), "otlp": object{"service": "secure"}}, "otlp secure"},
			{object{"stdout": none(), "grpc": object{"service": "plain"}}, "grpc plain"},
			{object{"stdout": none(), "grpc": object{"service": "secure"}}, "grpc secure"},
			{object{"stdout": none(), "min_status": 500, "file": object{}, "grpc": object{"service": "plain"}}, ""},
			{object{
				"file": object{"percent": 100}, "otlp": object{"service": "secure"}, "grpc": object{"service": "plain"},
			}, "stdout, file, otlp secure, grpc plain"},
			{object{"file": none(), "otlp": object{"service": "secure", "percent": 0}}, "stdout"},
		} {
			set(c.log)
			path := ask()
			want[path] = c.want
			if strings.Contains(c.want, "otlp") || strings.Contains(c.want, "grpc") {
				// Where the sink was led elsewhere before, the first entry may still go there: it is one of them in any case.
				delete(want, path)
				elsewhere[path] = strings.NewReplacer("plain", "", "secure", "").Replace(c.want)
				eventually(t, func() string {
					path := ask()
					got := ""
					for range 30 {
						if got = where(path); got == c.want {
							return ""
						}
						time.Sleep(50 * time.Millisecond) // a batch is sent each second: an entry has that long to be where it is to be
					}
					return fmt.Sprintf("%s is in %q, want %q", path, got, c.want)
				})
			}
		}
	}
	set(object{"stdout": none()})
	want[ask()] = ""
	for path, in := range want {
		eventually(t, func() string {
			if got := where(path); got != in {
				return fmt.Sprintf("%s is in %q, want %q", path, got, in)
			}
			return ""
		})
	}
	for path, in := range elsewhere {
		eventually(t, func() string {
			got := where(path)
			if strings.NewReplacer("plain", "", "secure", "").Replace(got) != in {
				return fmt.Sprintf("%s is in %q, want %q of either", path, got, in)
			}
			t.Logf("%s, right after the write, is in %q", path, got)
			return ""
		})
	}
	if after := listenerStats(t, s); !maps.Equal(before, after) {
		t.Errorf("sinks changed a listener: %v, before %v", after, before)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file, which has addresses and paths, is %v, %v", info, err)
	}

	// What an entry says.
	for path, in := range elsewhere {
		if !strings.HasPrefix(in, "stdout, file, otlp") || len(secure.OTLP(path)) == 0 || len(plain.GRPC(path)) == 0 {
			continue
		}
		for name, e := range map[string]collector.Entry{"OTLP": secure.OTLP(path)[0], "ALS": plain.GRPC(path)[0]} {
			if e.Fields["mark"] != path || e.Fields["route"] != "a" || !strings.HasSuffix(e.Gateway, "default") {
				t.Errorf("%s of %s: %+v", name, path, e)
			}
		}
		if e := secure.OTLP(path)[0].Fields; e["status"] != "200" || e["host"] != "a.example.com" {
			t.Errorf("%s: %v", path, e)
		}
		if line := inFile(file, path)[0]; !strings.Contains(line, `"mark":"`+path+`"`) {
			t.Error(line)
		}
	}

	// A share.
	set(object{"stdout": none(), "otlp": object{"service": "plain", "percent": 25.5}})
	first, count := n+1, 800
	for range count {
		ask()
	}
	last := func() string {
		got := 0
		for i := first; i <= n; i++ {
			got += len(plain.OTLP(fmt.Sprintf("/request-%d", i)))
		}
		if got < 140 || got > 270 { // 204, and five times the deviation of 12
			return fmt.Sprintf("of %d requests at 25.5 percent %d were sent", count, got)
		}
		return ""
	}
	eventually(t, last)
}

// TestSinksAreChecked: what cannot be a sink is refused, with the field.
func TestSinksAreChecked(t *testing.T) {
	s := start(t, "--no-demo")
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":9}]}}`, 201)
	for _, name := range []string{"logs", "more"} {
		call(t, s, "PUT", s.API+"/v1/services/"+name,
			`{"spec":{"protocol":"grpc","endpoints":[{"host":"127.0.0.1","port":9}]}}`, 201)
	}
	patch := func(log object) map[string]any {
		return object{"spec": object{"access_log": log}}
	}
	for _, c := range []struct {
		log   object
		field string
	}{
		{object{"otlp": object{"service": "nobody"}}, "$.spec.access_log.otlp.service"},
		{object{"grpc": object{"service": "nobody"}}, "$.spec.access_log.grpc.service"},
		{object{"otlp": object{"service": "web"}}, "$.spec.access_log.otlp.service"},
		{object{"grpc": object{"service": "web"}}, "$.spec.access_log.grpc.service"},
		{object{"otlp": object{"percent": 1}}, "$.spec.access_log.otlp.service"},
		{object{"file": object{"percent": 101}}, "$.spec.access_log.file.percent"},
		{object{"stdout": object{"percent": -1}}, "$.spec.access_log.stdout.percent"},
		{object{"file": object{"path": "/etc/passwd"}}, "$.spec.access_log.file.path"},
	} {
		answer := call(t, s, "PATCH", s.API+"/v1/gateways/default", patch(c.log), 422)
		if got := fmt.Sprint(answer["errors"]); !strings.Contains(got, c.field+" ") && !strings.Contains(got, c.field+"]") {
			t.Errorf("%v: %s does not name %s", c.log, got, c.field)
		}
	}
	call(t, s, "PATCH", s.API+"/v1/gateways/default", patch(object{
		"otlp": object{"service": "logs"}, "grpc": object{"service": "more"},
	}), 200)
	for _, name := range []string{"logs", "more"} {
		answer := call(t, s, "PATCH", s.API+"/v1/services/"+name, `{"spec":{"protocol":"http"}}`, 422)
		if got := fmt.Sprint(answer["errors"]); !strings.Contains(got, "$.spec.protocol") {
			t.Errorf("%s becomes http: %s", name, got)
		}
		call(t, s, "PATCH", s.API+"/v1/services/"+name, `{"spec":{"protocol":"http2"}}`, 200)
		answer = call(t, s, "DELETE", s.API+"/v1/services/"+name, nil, 409)
		if got := fmt.Sprint(answer["errors"]); !strings.Contains(got, "Gateway/default") {
			t.Errorf("%s is deleted: %s", name, got)
		}
	}
}

// TestLogFileIsRotated: the file is where the agent's environment says; after a rotation, as logrotate does it, Envoy
// writes a new one, and no line is lost.
func TestLogFileIsRotated(t *testing.T) {
	s := start(t, "--no-demo")
	dir, run := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "edge.log")
	e := startEdge(t, s, "ACCESS_LOG_FILE="+file, "MARCHPROXY_RUN_DIR="+run)
	if err := e.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	call(t, s, "PUT", s.API+"/v1/routes/a", direct("a", "a", object{"gateways": []string{"edge"}}), 201)
	call(t, s, "PATCH", s.API+"/v1/gateways/edge?wait=live", object{"spec": object{"access_log": object{
		"stdout": object{"percent": 0}, "file": object{},
	}}}, 200)
	eventually(t, func() string {
		if got, _, err := probe.New(e.proxy).Get("a.example.com", "/first"); err != nil || got.Status != 200 {
			return fmt.Sprint(got.Status, err)
		}
		return ""
	})
	reopen := func() {
		t.Helper()
		cmd := exec.Command(harness.ProgramForTest(t, "marchproxy-agent"), "admin", "POST", "/reopen_logs")
		cmd.Env = []string{"MARCHPROXY_RUN_DIR=" + run}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	kept := probe.New(e.proxy)
	defer kept.Close()
	old := ""
	for i := range 5 {
		path := fmt.Sprintf("/round-%d", i)
		if got, _, err := kept.Get("a.example.com", path); err != nil || got.Status != 200 {
			t.Fatal(got.Status, err)
		}
		if i > 0 {
			old = fmt.Sprintf("%s.%d", file, i)
			if err := os.Rename(file, old); err != nil {
				t.Fatal(err)
			}
		}
		reopen()
		eventually(t, func() string {
			// What was not written yet goes to the new file.
			if n := len(inFile(file, path)) + len(inFile(old, path)); n != 1 {
				return fmt.Sprintf("%s is %d times in the files", path, n)
			}
			return ""
		})
		// It has addresses and paths: who is in the group of the file may read it, and others may not.
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("the new file is %v, %v", info, err)
		}
	}
	if info, err := os.Lstat(filepath.Join(run, "access.log")); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the directory of the agent has %v, %v", info, err)
	}
	a, err := harness.StartAgent([]string{
		"XDS_SERVER=" + s.GRPC, "ENVOY_PATH=/bin/true", "MARCHPROXY_RUN_DIR=" + t.TempDir(), "LOGLEVEL=error",
		"ACCESS_LOG_FILE=" + filepath.Join(dir, "not", "there", "edge.log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.Exited():
	case <-time.After(20 * time.Second):
		t.Fatal("an agent whose log cannot be written goes on")
	}
	if !strings.Contains(a.Log(), "ACCESS_LOG_FILE") {
		t.Errorf("it says %s", a.Log())
	}
}

// TestHungCollector: a collector that takes connections and no entries slows no request, and an Envoy keeps a bounded
// part of what it cannot send.
func TestHungCollector(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "1")
	c := collect(t, nil)
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{
		collects("logs", c, nil), direct("a", "a", nil),
	}}, 200)
	call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live", object{"spec": object{"access_log": object{
		"stdout": object{"percent": 0}, "otlp": object{"service": "logs"}, "grpc": object{"service": "logs"},
	}}}, 200)
	kept := probe.New(s.Proxy)
	defer kept.Close()
	const batch, rounds = 100, 40
	ask := func() float64 {
		t.Helper()
		t0 := time.Now()
		for range batch {
			if got, _, err := kept.Get("a.example.com", "/x"); err != nil || got.Status != 200 {
				t.Fatal(got.Status, err)
			}
		}
		return float64(time.Since(t0))
	}
	memory := func() int {
		t.Helper()
		var n int
		_, raw, err := s.Call(t.Context(), "GET", s.Admin+"/stats?filter=^server.memory_allocated$", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(string(raw), "server.memory_allocated: %d", &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	ask()
	eventually(t, func() string {
		if o, g := len(c.OTLP("/x")), len(c.GRPC("/x")); o != batch || g != batch {
			return fmt.Sprintf("of %d requests %d came by OTLP and %d by ALS", batch, o, g)
		}
		return ""
	})
	was := memory()
	var takes, hangs []float64
	for range rounds {
		takes = append(takes, ask())
		c.Hang(true)
		hangs = append(hangs, ask())
		c.Hang(false)
	}
	mid, low, high := measure.Paired(takes, hangs, func(takes, hangs float64) float64 { return hangs / takes })
	t.Logf("a request takes %.2f times as long (%.2f to %.2f) while the collector hangs", mid, low, high)
	if low > 1.25 {
		t.Errorf("a request takes %.2f times as long (%.2f to %.2f) while the collector hangs", mid, low, high)
	}
	c.Hang(true)
	const more = 200
	for range more {
		ask()
	}
	grown := memory() - was
	t.Logf("an Envoy that cannot send %d entries has %d KB more than before", more*batch, grown>>10)
	if grown > 8<<20 {
		t.Errorf("an Envoy that cannot send %d entries has %d KB more than before", more*batch, grown>>10)
	}
	c.Hang(false)
	count := func() (int, int) { return len(c.OTLP("/after")), len(c.GRPC("/after")) }
	eventually(t, func() string {
		if got, _, err := kept.Get("a.example.com", "/after"); err != nil || got.Status != 200 {
			t.Fatal(got.Status, err)
		}
		if o, g := count(); o == 0 || g == 0 {
			return fmt.Sprintf("a collector that goes on gets %d by OTLP and %d by ALS", o, g)
		}
		return ""
	})
}
