package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// patience is how long a test waits for what should take a moment.
const patience = 30 * time.Second

// TestEnvoyIsSupervised: the agent starts Envoy, starts it again, and lets its requests end.
func TestEnvoyIsSupervised(t *testing.T) {
	s := start(t, "--no-demo")
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-leave
		}
		fmt.Fprint(w, "served")
	}))
	t.Cleanup(slow.Close)
	port := slow.URL[strings.LastIndexByte(slow.URL, ':')+1:]
	e := startEdge(t, s, "DRAIN_TIMEOUT=20s")
	call(t, s, "PUT", s.API+"/v1/services/slow", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+port+`}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/slow", `{"spec":{"gateways":["edge"],"backends":[{"service":"slow"}],`+
		`"timeout":"60s"}}`, 201)
	if err := e.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	get := func(path string) (probe.Answer, error) {
		c := probe.New(e.proxy)
		defer c.Close()
		a, _, err := c.Get("a.test", path)
		return a, err
	}
	serves := func() bool { a, err := get("/"); return err == nil && a.Body == "served" }
	if err := harness.Await(within(t), serves); err != nil {
		t.Fatalf("Envoy does not serve: %v\n%s", err, e.Log())
	}
	var state struct{ Envoy struct{ Pid, Restarts int } }
	if _, err := e.Get(t.Context(), "/v1/state", &state); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(state.Envoy.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again := func() bool {
		_, err := e.Get(t.Context(), "/v1/state", &state)
		return err == nil && state.Envoy.Restarts == 1 && serves()
	}
	if err := harness.Await(within(t), again); err != nil {
		t.Fatalf("Envoy is not started again: %v\n%s", err, e.Log())
	}
	answer := make(chan probe.Answer, 1)
	go func() {
		a, err := get("/slow")
		if err != nil {
			t.Error("a request in flight was cut off: ", err)
		}
		answer <- a
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- e.Stop(syscall.SIGTERM) }()
	closing := func() bool { // a connection is not used for a second request
		c := probe.New(e.proxy)
		defer c.Close()
		_, _, first := c.Get("a.test", "/")
		_, reused, second := c.Get("a.test", "/")
		return first == nil && second == nil && !reused
	}
	if err := harness.Await(within(t), closing); err != nil {
		t.Errorf("a draining Envoy does not ask for connections to be closed: %v", err)
	}
	close(leave)
	if a := <-answer; a.Body != "served" {
		t.Errorf("the request in flight was answered %d %q", a.Status, a.Body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("the agent ended with %v\n%s", err, e.Log())
	}
}

// TestWhyEnvoyIsNotReady: one line says what an operator has to look at.
func TestWhyEnvoyIsNotReady(t *testing.T) {
	s := start(t, "--no-demo")
	free, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // nobody has connected
	occupied := fmt.Sprintf("cannot listen on %s, which e2e.test (process %d) holds (address already in use); stop "+
		"that, or change ", taken.Addr(), os.Getpid())
	for _, c := range []struct{ env, says string }{
		{"ENVOY_ADMIN_ADDR=" + taken.Addr().String(), occupied + "ENVOY_ADMIN_ADDR"},
		{"CLUSTER_API_KEY=not-the-key-of-this-one", "refuses its key"},
		{"XDS_SERVER=127.0.0.1:" + strconv.Itoa(free[0]), "cannot reach the xDS server: dial tcp 127.0.0.1"},
		{"XDS_SERVER=nowhere.invalid:18000", "cannot reach the xDS server: "},
	} {
		e := startEdge(t, s, c.env, "LOGLEVEL=warn", "ALLOW_PLAINTEXT=true")
		if err := e.Says(within(t), c.says); err != nil {
			t.Errorf("%s: %v", c.env, err)
		}
		if status, err := e.Get(t.Context(), "/readyz", nil); err != nil || status != http.StatusServiceUnavailable {
			t.Errorf("%s: /readyz is %d %v", c.env, status, err)
		}
		if err := e.Stop(syscall.SIGTERM); err != nil {
			t.Errorf("%s: the agent ended with %v", c.env, err)
		}
		call(t, s, "DELETE", s.API+"/v1/gateways/edge", nil, 200)
	}
	a, err := harness.StartAgent([]string{"XDS_SERVER=" + s.GRPC, "ENVOY_PATH=/bin/true", "MARCHPROXY_RUN_DIR=" +
		t.TempDir(), "AGENT_HTTP_ADDR=" + taken.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	<-a.Exited()
	if log := a.Log(); !strings.Contains(log, "marchproxy-agent: "+occupied+"AGENT_HTTP_ADDR\n") {
		t.Errorf("an agent whose port is taken says %s", log)
	}
}

// TestProcessOne: as a container's process 1 the agent takes in orphans, and ends when it is told to.
func TestProcessOne(t *testing.T) {
	s := start(t, "--no-demo")
	script := filepath.Join(t.TempDir(), "envoy")
	// An Envoy that leaves an orphan behind, which ends at once.
	if err := os.WriteFile(script, []byte("#!/bin/sh\n(sh -c 'sleep 0.1 & echo orphan $!' &)\nexec sleep 1000\n"),
		0o755); err != nil {
		t.Fatal(err)
	}
	a, err := harness.StartAgent([]string{"XDS_SERVER=" + s.GRPC, "ENVOY_PATH=" + script, "MARCHPROXY_RUN_DIR=" +
		t.TempDir(), "LOGLEVEL=info", "DRAIN_TIMEOUT=1s"},
		"unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Says(within(t), "orphan "); err != nil {
		t.Fatal(err)
	}
	one := child(t, a.Cmd.Process.Pid)
	clean := func() bool { // nobody below process 1 is dead and unburied
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", one, one))
		if err != nil {
			return false
		}
		for _, pid := range strings.Fields(string(raw)) {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err == nil && strings.Contains(string(stat), ") Z ") {
				return false
			}
		}
		return len(strings.Fields(string(raw))) == 1 // the agent
	}
	if err := harness.Await(within(t), clean); err != nil {
		t.Errorf("orphans are left: %v", err)
	}
	if err := syscall.Kill(one, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.Exited():
	case <-within(t).Done():
		t.Errorf("process 1 does not end\n%s", a.Log())
	}
}

// child is the one child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	var out int
	err := harness.Await(within(t), func() bool {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return false
		}
		n, err := fmt.Sscan(string(raw), &out)
		return err == nil && n == 1
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
