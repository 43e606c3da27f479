package golden

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// liveEnvoy is an Envoy that takes clusters and listeners while it runs, from files: it says of each whether
// it takes it, which `--mode validate` does of the first bad one only, and makes of them what is made under load.
type liveEnvoy struct {
	dir, admin string
	log        *os.File
	read       int64
}

func startLive(t testing.TB, clusters []any) *liveEnvoy {
	t.Helper()
	bin, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	e := &liveEnvoy{dir: t.TempDir()}
	b := base(t)
	b["admin"] = object{"address": object{"socket_address": object{"address": "127.0.0.1", "port_value": 0}}}
	dynamic := object{}
	for _, kind := range []string{"lds", "cds"} {
		e.write(t, kind, nil)
		dynamic[kind+"_config"] = object{"resource_api_version": "V3", "path_config_source": object{
			"path":              e.path(kind),
			"watched_directory": object{"path": e.dir},
		}}
	}
	b["dynamic_resources"] = dynamic
	runtime := b["layered_runtime"].(object)
	// of an xDS server
	runtime["layers"] = slices.DeleteFunc(runtime["layers"].([]any),
		func(l any) bool { return l.(object)["rtds_layer"] != nil })
	static := b["static_resources"].(object)
	static["clusters"] = append(static["clusters"].([]any), clusters...)
	if err := os.WriteFile(e.path("bootstrap"), encode(t, b), 0o600); err != nil {
		t.Fatal(err)
	}
	if e.log, err = os.Create(filepath.Join(e.dir, "log")); err != nil {
		t.Fatal(err)
	}
	address := filepath.Join(e.dir, "admin")
	cmd := exec.Command(bin, "-c", e.path("bootstrap"), "--concurrency", "1", "--log-level", "warning",
		"--disable-hot-restart",
		"--drain-time-s", "1", "--drain-strategy", "immediate", "--admin-address-path", address)
	cmd.Stdout, cmd.Stderr, cmd.Dir = e.log, e.log, e.dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed
	})
	e.await(t, "its admin interface", func() bool {
		raw, err := os.ReadFile(address)
		e.admin = string(raw)
		return err == nil && e.admin != "" && e.updates("cluster_manager.cds") > 0 && e.updates("listener_manager.lds") > 0
	})
	return e
}

func (e *liveEnvoy) path(kind string) string { return filepath.Join(e.dir, kind+".json") }

func (e *liveEnvoy) await(t testing.TB, what string, there func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(2 * time.Minute)
	for !there() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("Envoy: no %s in two minutes; it says:\n%s", what, e.said(t))
		}
	}
}

// updates is how many updates of a kind Envoy has looked at.
func (e *liveEnvoy) updates(kind string) int {
	resp, err := http.Get("http://" + e.admin + "/stats?filter=^" + kind + ".update_(success|rejected)$")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		count, _ := strconv.Atoi(value) // Envoy writes numbers
		n += count
	}
	return n
}

func (e *liveEnvoy) write(t testing.TB, kind string, resources []any) {
	t.Helper()
	tmp := e.path(kind) + ".new"
	if err := os.WriteFile(tmp, encode(t, object{
		"version_info": strconv.FormatInt(time.Now().UnixNano(), 10),
		"resources":    resources,
	}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, e.path(kind)); err != nil {
		t.Fatal(err)
	}
}

func (e *liveEnvoy) said(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := e.log.Seek(e.read, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(e.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	b.Write(raw[e.read:])
	e.read = int64(len(raw))
	return b.String()
}

// caseName is what resources of a case are called; Envoy's complaint names them.
func caseName(i int, name string) string { return fmt.Sprintf("case-%d-%s", i, name) }

var complaint = regexp.MustCompile(`case-(\d+)-[^:\s]*: `)

// load shows Envoy the clusters (cds) or listeners (lds) of cases, instead of those before, and returns what it
// says of those that it refuses, by the case's number.
func (e *liveEnvoy) load(t testing.TB, kind string, resources []any) map[int]string {
	t.Helper()
	stat := map[string]string{"lds": "listener_manager.lds", "cds": "cluster_manager.cds"}[kind]
	before := e.updates(stat)
	e.said(t)
	e.write(t, kind, resources)
	e.await(t, kind, func() bool { return e.updates(stat) > before })
	said := e.said(t)
	out := map[int]string{}
	at := complaint.FindAllStringSubmatchIndex(said, -1)
	for i, m := range at {
		end := len(said)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		n, _ := strconv.Atoi(said[m[2]:m[3]]) // the expression takes numbers
		out[n] = strings.TrimSpace(said[m[1]:end])
	}
	if len(out) == 0 && strings.Contains(said, "rejected") {
		t.Errorf("Envoy refuses the whole of it:\n%.2000s", said)
	}
	return out
}

// TestLiveRefusal: of several cases Envoy's complaint is put down to the right one.
func TestLiveRefusal(t *testing.T) {
	e := startLive(t, nil)
	objects := golden(t, translatorCase(t, "direct-response"))
	var listeners []any
	for i := range 3 {
		l := listenersWithTables(t, i, objects)
		if i == 1 {
			l[0].(object)["filter_chains"].([]any)[0].(object)["filters"] = []any{
				object{"name": "nonsense", "typed_config": object{"@type": typePrefix + "config.cluster.v3.Cluster"}},
			}
		}
		listeners = append(listeners, l...)
	}
	if got := e.load(t, "lds", listeners); len(got) != 1 || got[1] == "" {
		t.Errorf("%v", got)
	}
}
