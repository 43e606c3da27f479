package monitoring

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// engine answers as a Docker engine does that has one container, or none.
type engine struct {
	*httptest.Server
	has   atomic.Bool
	comes chan struct{}
}

// add has a container come.
func (e *engine) add() {
	e.has.Store(true)
	close(e.comes)
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/_ping":
	case "/events":
		_ = http.NewResponseController(w).Flush()
		select {
		case <-e.comes:
			_, _ = io.WriteString(w, `{"Type":"container","Action":"start","Actor":{"ID":"1"}}`+"\n")
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
		}
		<-r.Context().Done()
	case "/containers/json":
		if !e.has.Load() {
			_, _ = io.WriteString(w, "[]")
			return
		}
		_, _ = io.WriteString(w, `[{"Id":"1","Names":["/web"],"State":"running","Ports":[{"PrivatePort":80,"Type":"tcp"}],
			"Labels":{"marchproxy.enable":"true"},"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"10.0.0.2"}}}}]`)
	default:
		http.NotFound(w, r)
	}
}

// startDiscover starts discovery at an engine, with a token that may write nothing that it finds, and returns where its
// metrics are.
func startDiscover(t *testing.T, s *harness.System) (addr string, e *engine) {
	t.Helper()
	status, raw, err := s.Call(t.Context(), http.MethodPost, s.API+"/v1/tokens", map[string]any{
		"name": "discover", "role": "editor", "bounds": map[string]any{"owners": []string{"discover/elsewhere"}},
	})
	var token struct{ Token string }
	if err != nil || status != http.StatusCreated || json.Unmarshal(raw, &token) != nil {
		t.Fatalf("a token: %d %s %v", status, raw, err)
	}
	e = &engine{comes: make(chan struct{})}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.CloseClientConnections)
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	program, err := harness.Program("marchproxy-discover")
	if err != nil {
		t.Fatal(err)
	}
	addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), "MARCHPROXY_API="+s.API, "MARCHPROXY_TOKEN="+token.Token, "DISCOVER_SITE=here",
		"DISCOVER_HTTP_ADDR="+addr, "LOGLEVEL=error", "DOCKER_HOST="+strings.Replace(e.URL, "http://", "tcp://", 1))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it ends by the signal
	})
	return addr, e
}
