package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// TestDev: a port that is taken is named with its flag, all of them at once; and another port for
// the proxy takes the configuration along.
func TestDev(t *testing.T) {
	s := start(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	dir := t.TempDir()
	c := &terminalOf{T: t, s: s, dir: dir}
	api := s.API[strings.LastIndexByte(s.API, ':')+1:]
	_, e := c.run(1, "dev", "--state-dir", dir, "--api-port", api, "--nats-port", port, "--xds-http-port", port)
	c.says(e, fmt.Sprintf("port %s (the api) is taken by marchproxy-api (process %d); --api-port chooses another", api,
		s.Pid("api")),
		fmt.Sprintf("port %s (POST /v1/config) is taken by e2e.test (process %d); --xds-http-port chooses another",
			port, os.Getpid()),
		fmt.Sprintf("port %s is given to --xds-http-port and --nats-port", port))

	envoyOnPath(t, s)

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	free, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	s.With("--proxy-port", strconv.Itoa(free[0]))
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := probe.New(net.JoinHostPort("127.0.0.1", strconv.Itoa(free[0])))
	defer p.Close()
	if a, _, err := p.Get("localhost", "/"); err != nil || a.Body != "Hello from backend\n" {
		t.Errorf("the proxy's new port answers %+v, %v", a, err)
	}
	c.says(c.text("revisions", "--limit", "1"), "marchproxy dev --proxy-port")
}

// envoyOnPath: an Envoy of the pinned version on PATH is used, another one is not.
func envoyOnPath(t *testing.T, s *harness.System) {
	t.Helper()
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	pinned := strings.TrimSpace(c.text("dev", "envoy-path", "--fetched"))
	c.env = []string{"PATH=" + c.dir + ":" + os.Getenv("PATH")}
	c.file("envoy", "#!/bin/sh\necho 'envoy version: 0/1.0.0/Clean/RELEASE/BoringSSL'\n")
	on := filepath.Join(c.dir, "envoy")
	if err := os.Chmod(on, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(c.text("dev", "envoy-path")); got != pinned {
		t.Errorf("Envoy 1.0.0 on PATH makes %s of %s", got, pinned)
	}
	c.file("envoy", "#!/bin/sh\nsleep 30\n")
	if got := strings.TrimSpace(c.text("dev", "envoy-path")); got != pinned {
		t.Errorf("an envoy on PATH that does not answer makes %s of %s", got, pinned)
	}
	if err := os.Remove(on); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(pinned, on); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(c.text("dev", "envoy-path")); got != on {
		t.Errorf("the pinned Envoy on PATH is not used, but %s", got)
	}
	if got := strings.TrimSpace(c.text("dev", "envoy-path", "--fetched")); got != pinned {
		t.Errorf("beside the pinned Envoy on PATH the tests get %s", got)
	}
	c.env = []string{"ENVOY_PATH=" + pinned}
	if got := strings.TrimSpace(c.text("dev", "envoy-path")); got != pinned {
		t.Errorf("ENVOY_PATH is not used, but %s", got)
	}
	c.file("other", "#!/bin/sh\necho 'envoy version: 0/1.0.0/Clean/RELEASE/BoringSSL'\n")
	for path, says := range map[string]string{
		filepath.Join(c.dir, "none"):  "no such file",
		filepath.Join(c.dir, "other"): "is no Envoy 1.",
	} {
		c.env = []string{"ENVOY_PATH=" + path}
		if err := os.Chmod(path, 0o755); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		_, e := c.run(1, "dev", "envoy-path")
		c.says(e, "ENVOY_PATH: ", says, "unset it, or name")
	}
}
