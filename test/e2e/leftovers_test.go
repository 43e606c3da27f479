package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// TestKilledRun: dev is killed, and everything that it leaves is in nobody's way: the next run stops it, says so,
// and has the configuration.
func TestKilledRun(t *testing.T) {
	s := start(t)
	call(t, s, "PUT", s.API+"/v1/routes/kept?wait=live",
		`{"spec":{"hosts":["kept.test"],"direct_response":{"status":200,"body":"kept"}}}`, 201)
	pids := map[string]int{"postgres": s.Postmaster()}
	for _, part := range []string{"nats", "api", "xds", "backend", "envoy"} {
		pids[part] = s.Pid(part)
	}
	// One that does not die with its parent, as where a debugger holds it.
	stray := exec.CommandContext(t.Context(), "sleep", "1000")
	stray.Env = append(os.Environ(), "MARCHPROXY_DEV_STATE="+s.Dir)
	run(t, stray)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pids["envoy"]))
	if err != nil || len(maps) == 0 || strings.Contains(string(maps), "/dev/shm/") {
		t.Errorf("Envoy has shared memory, which stays when it is killed (%v)", err)
	}
	if err := s.Crash(); err != nil {
		t.Fatal(err)
	}
	if !harness.Alive(pids["postgres"]) {
		t.Fatal("PostgreSQL has died with dev: the test proves nothing")
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for part, pid := range pids {
		gone(t, part, pid)
	}
	gone(t, "a stray process", stray.Process.Pid)
	for _, words := range []string{
		"stopping what an earlier run has left, which was killed: ",
		fmt.Sprintf("postgres (process %d)", pids["postgres"]), fmt.Sprintf("sleep (process %d)", stray.Process.Pid),
	} {
		if !strings.Contains(s.Output(), words) {
			t.Errorf("dev does not say %q:\n%s", words, s.Output())
		}
	}
	if status, body := proxied(t, s, "kept.test", "/"); status != 200 || body != "kept" {
		t.Errorf("after it the proxy answers %d %s", status, body)
	}

	// A clean end shows nothing that runs.
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	var shown struct {
		Pids  map[string]int
		Ready bool
	}
	raw, err := os.ReadFile(filepath.Join(s.Dir, "run.json"))
	if err == nil {
		err = json.Unmarshal(raw, &shown)
	}
	if err != nil || shown.Ready || len(shown.Pids) > 0 {
		t.Errorf("run.json of a system that has stopped: %s %v", raw, err)
	}

	// PostgreSQL's file with a number that is another process's by now, as in a container that starts again.
	recycled := exec.CommandContext(t.Context(), "sleep", "1000")
	if os.Geteuid() == 0 { // PostgreSQL minds its own user's processes only
		recycled.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	run(t, recycled)
	data := filepath.Join(s.Dir, "postgres", "data")
	stale := fmt.Sprintf("%d\n%s\n1700000000\n5432\n\n127.0.0.1\n\nready\n", recycled.Process.Pid, data)
	if err := os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatalf("with a recycled process id: %v", err)
	}
	if words := fmt.Sprintf("its number is that of sleep (process %d) now",
		recycled.Process.Pid); !strings.Contains(s.Output(), words) {
		t.Errorf("dev does not say %q:\n%s", words, s.Output())
	}
	if !harness.Alive(recycled.Process.Pid) {
		t.Error("a stranger's process was stopped")
	}
	if status, _ := proxied(t, s, "kept.test", "/"); status != 200 {
		t.Errorf("after it the proxy answers %d", status)
	}
}

// TestKilledFirstRun: dev is killed while it makes the database, and at the next run the database is made anew.
func TestKilledFirstRun(t *testing.T) {
	s := start(t, "--no-demo")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{"data/PG_VERSION", "data/postmaster.pid"} {
		for _, dir := range []string{"data", "ready"} {
			// What the killed run has left still writes there for a moment.
			var err error
			removed := func() bool { err = os.RemoveAll(filepath.Join(s.Dir, "postgres", dir)); return err == nil }
			if harness.Await(within(t), removed) != nil {
				t.Fatal(err)
			}
		}
		if err := s.Begin(); err != nil {
			t.Fatal(err)
		}
		there := func() bool {
			_, err := os.Stat(filepath.Join(s.Dir, "postgres", half))
			return err == nil
		}
		if err := harness.Await(within(t), there); err != nil {
			t.Fatalf("%s is not made: %v\n%s", half, err, s.Output())
		}
		if err := s.Crash(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	call(t, s, "PUT", s.API+"/v1/routes/r?wait=live", `{"spec":{"direct_response":{"status":200}}}`, 201)
}

// TestKilledDownload: what a download has left that was killed goes, and one that may be under way stays.
func TestKilledDownload(t *testing.T) {
	cache := cacheWithoutFilters(t)
	old, young := filepath.Join(cache, ".envoy-1"), filepath.Join(cache, ".envoy-2")
	for dir, age := range map[string]time.Duration{old: 2 * time.Hour, young: time.Minute} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chtimes(dir, time.Time{}, time.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	start(t, "--no-demo", "--cache-dir", cache)
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an old one is left: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("a young one is gone: %v", err)
	}
}

// TestStateOfOthers: what dev cannot use it names in one line, with what to do.
func TestStateOfOthers(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	pid := strconv.Itoa(s.Dev())
	_, e := c.run(1, "dev", "--state-dir", s.Dir)
	c.says(e, "another marchproxy dev (process "+pid+") runs on "+s.Dir+"; stop it, or use another --state-dir")
	if strings.Count(e, "\n") != 1 {
		t.Errorf("more than one line: %s", e)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	secrets := filepath.Join(s.Dir, "secrets.json")
	kept, err := os.ReadFile(secrets)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secrets, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), secrets+" cannot be read (unexpected end "+
		"of JSON input); restore it, or remove "+s.Dir) {
		t.Errorf("with secrets that cannot be read: %v", err)
	}
	if err := os.WriteFile(secrets, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNeighbours: what else is on the machine and in the user's environment is for others.
func TestNeighbours(t *testing.T) {
	s := start(t)
	port := s.PostgresPort()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	// Whatever the mask of whoever runs this: the database's user must get in.
	if err := errors.Join(os.Mkdir(s.Dir, 0o755), os.Chmod(s.Dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	// Another PostgreSQL, which listens at the same port's socket only.
	lock := filepath.Join("/tmp", ".s.PGSQL."+strconv.Itoa(port)+".lock")
	if err := os.WriteFile(lock, []byte(strconv.Itoa(os.Getpid())+"\n/elsewhere\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(lock) }) // it does no harm
	s.Setenv("LANG=tlh_XX.UTF-8", "LC_ALL=tlh_XX.UTF-8", "LC_MESSAGES=tlh_XX.UTF-8", "HOME="+t.TempDir(),
		"PGHOST=elsewhere.invalid", "PGPORT=1", "PGSERVICE=none", "PGSERVICEFILE=/none",
		"PGOPTIONS=-c default_transaction_read_only=on", "PGDATA=/none",
		"PGTARGETSESSIONATTRS=read-only", "PGSSLMODE=verify-full", "DATABASE_URL_FILE=/none",
		"NATS_URL=nats://elsewhere.invalid", "NATS_URL_FILE=/none",
		"SECRET_KEY_FILE=/none", "CLUSTER_API_KEY_FILE=/none", "http_proxy=http://127.0.0.1:1",
		"HTTP_PROXY=http://127.0.0.1:1", "TMPDIR="+t.TempDir())
	mask := syscall.Umask(0o077) // as some users set it; children have it from here
	err := s.Begin()
	syscall.Umask(mask)
	if err == nil {
		err = s.AwaitReady(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if status, body := proxied(t, s, "anything.test", "/"); status != 200 || body != "Hello from backend\n" {
		t.Errorf("the proxy answers %d %s", status, body)
	}
	call(t, s, "PUT", s.API+"/v1/routes/r?wait=live", `{"spec":{"hosts":["r.test"],"direct_response":{"status":200}}}`,
		201)
}
