package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// Agent is a running marchproxy-agent.
type Agent struct {
	Cmd *exec.Cmd
	// HTTP is its URL.
	HTTP   string
	env    []string
	wrap   []string
	log    lines
	exited chan struct{}
	err    error
}

// lines gathers what a process writes, for several readers.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// EnvoyPath is the pinned Envoy in the cache, whatever is on PATH; the program marchproxy fetches it where it is missing.
var EnvoyPath = sync.OnceValues(func() (string, error) {
	program, err := Program("marchproxy")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(program, "dev", "envoy-path", "--fetched")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find Envoy: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// StartAgent runs marchproxy-agent with an environment, and nothing else of this one's. wrap is a
// command to run it under, such as ip netns exec NAME.
func StartAgent(env []string, wrap ...string) (*Agent, error) {
	ports, err := porttest.Take(1)
	if err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(ports[0])
	a := &Agent{HTTP: "http://" + addr, env: append([]string{"PATH=" + os.Getenv("PATH"), "AGENT_HTTP_ADDR=" + addr},
		env...), wrap: wrap}
	return a, a.Start()
}

// Start runs it, again after it has ended.
func (a *Agent) Start() error {
	program, err := Program("marchproxy-agent")
	if err != nil {
		return err
	}
	args := append(append([]string(nil), a.wrap...), program)
	a.Cmd = exec.Command(args[0], args[1:]...)
	a.Cmd.Env, a.Cmd.Stdout, a.Cmd.Stderr = a.env, &a.log, &a.log
	a.Cmd.WaitDelay = 10 * time.Second // an Envoy that it leaves behind has its log open
	if err := a.Cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", args, err)
	}
	exited := make(chan struct{})
	a.exited = exited
	go func() {
		a.err = a.Cmd.Wait()
		close(exited)
	}()
	return nil
}

// Setenv changes its environment from the next start on.
func (a *Agent) Setenv(setting string) { a.env = append(a.env, setting) }

// Log is what it has said so far.
func (a *Agent) Log() string { return a.log.String() }

// Exited is closed when it has ended.
func (a *Agent) Exited() <-chan struct{} { return a.exited }

// Stop sends a signal and waits for the end; its error is how the process ended.
func (a *Agent) Stop(sig os.Signal) error {
	if err := a.Cmd.Process.Signal(sig); err != nil {
		return err
	}
	<-a.exited
	return a.err
}

// Await asks every few milliseconds until a condition holds or the context ends.
func Await(ctx context.Context, holds func() bool) error {
	for !holds() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Says waits for words in its log.
func (a *Agent) Says(ctx context.Context, words string) error {
	if err := Await(ctx, func() bool { return strings.Contains(a.Log(), words) }); err != nil {
		return fmt.Errorf("the agent did not say %q: %w\n%s", words, err, a.Log())
	}
	return nil
}

// Get reads JSON from its HTTP door.
func (a *Agent) Get(ctx context.Context, path string, into any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.HTTP+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	if into != nil {
		err = json.NewDecoder(resp.Body).Decode(into)
	}
	return resp.StatusCode, err
}

// Ready waits until it says that it is.
func (a *Agent) Ready(ctx context.Context) error {
	err := Await(ctx, func() bool {
		status, err := a.Get(ctx, "/readyz", nil)
		return err == nil && status == http.StatusOK
	})
	if err != nil {
		return fmt.Errorf("the agent does not get ready: %w\n%s", err, a.Log())
	}
	return nil
}
