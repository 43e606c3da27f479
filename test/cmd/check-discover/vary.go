package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// vary has services change for the length of the run.
func (t *trial) vary(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(15, 4))
	end := time.Now().Add(t.length)
	said := time.Now()
	for n := 0; time.Now().Before(end); n++ {
		i := rng.IntN(t.services)
		s := service(i)
		var err error
		switch n % 6 {
		case 0:
			err = t.compose(ctx, "up", "--detach", "--no-recreate", "--scale", s+"=4", s)
		case 1:
			err = t.compose(ctx, "up", "--detach", "--no-recreate", "--scale", s+"=2", s)
		case 2: // one of its containers
			err = t.one(ctx, s, "restart")
		case 3:
			i -= i % 3
			err = t.sick(ctx, service(i))
		case 4:
			if err = t.compose(ctx, "rm", "--stop", "--force", s); err == nil {
				err = t.compose(ctx, "up", "--detach", "--no-recreate", s)
			}
		case 5: // killed, and started again
			if err = t.one(ctx, s, "kill"); err == nil {
				err = t.compose(ctx, "up", "--detach", "--no-recreate", s)
			}
		}
		if err != nil {
			return err
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			t.mu.Lock()
			fmt.Printf("%s left: %d changes, %d states, slowest %s, %d requests, %d failed\n",
				time.Until(end).Round(time.Second), n, t.states, t.slowest.Round(time.Millisecond), t.sent.Load(), t.failed.Load())
			t.mu.Unlock()
		}
	}
	return nil
}

// containers are those of a service that run.
func (t *trial) containers(ctx context.Context, s string) ([]string, error) {
	out, err := t.docker(ctx, "ps", "--quiet", "--no-trunc", "--filter", "label=com.docker.compose.project="+project,
		"--filter", "label=com.docker.compose.service="+s)
	return strings.Fields(out), err
}

func (t *trial) one(ctx context.Context, s, do string) error {
	all, err := t.containers(ctx, s)
	if err != nil || len(all) == 0 {
		return err
	}
	_, err = t.docker(ctx, do, all[0])
	return err
}

// sick has one container of a service fail its checks, and pass them again. The service has another one meanwhile.
func (t *trial) sick(ctx context.Context, s string) error {
	if err := t.compose(ctx, "up", "--detach", "--no-recreate", "--wait", "--scale", s+"=2", s); err != nil {
		return err
	}
	all, err := t.containers(ctx, s)
	if err != nil {
		return err
	}
	if len(all) != 2 {
		return fmt.Errorf("%s has the containers %v after it was scaled to two", s, all)
	}
	addr, err := t.address(ctx, all[0])
	if err != nil {
		return err
	}
	for _, path := range []string{"/sick", "/well"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+":8080"+path, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("tell a container of %s to change: %w", s, err)
		}
		_ = resp.Body.Close()
		want := map[string]string{"/sick": "unhealthy", "/well": "healthy"}[path]
		limit, cancel := context.WithTimeout(ctx, time.Minute)
		err = harness.Await(limit, func() bool {
			got, err := t.docker(limit, "inspect", "--format", "{{.State.Health.Status}}", all[0])
			return err != nil || got == want
		})
		cancel()
		if err != nil {
			return fmt.Errorf("a container of %s does not become %s: %w", s, want, err)
		}
	}
	return nil
}

// badLabel gives a service a label that is wrong: it is said, its other route is served, and no other service notices.
func (t *trial) badLabel(ctx context.Context) error {
	fmt.Println("a label that is wrong")
	var f strings.Builder
	f.WriteString("services:\n")
	t.write(&f, t.services, map[string]string{
		"marchproxy.routes.bad.paht.prefix": "/",
		"marchproxy.routes.bad.hosts":       "bad.test",
	})
	path := filepath.Join(t.dir, "bad.yaml")
	if err := os.WriteFile(path, []byte(f.String()), 0o600); err != nil {
		return err
	}
	if _, err := t.docker(ctx, "compose", "--progress", "quiet", "-p", project+"-bad", "-f", path, "up",
		"--detach"); err != nil {
		return err
	}
	defer func() {
		_, _ = t.docker(ctx, "compose", "--progress", "quiet", "-p", project+"-bad", "-f", path, "down", "--timeout", "1")
	}()
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c := probe.New(t.s.Proxy)
	defer c.Close()
	if err := harness.Await(limit, func() bool {
		a, _, err := c.Get(service(t.services)+".test", "/")
		return err == nil && a.Status == http.StatusOK
	}); err != nil {
		return fmt.Errorf("beside a route with a bad label the other one is not served: %w", err)
	}
	said, err := t.problems(ctx)
	if err != nil || !strings.Contains(said, "marchproxy.routes.bad.paht.prefix") {
		return fmt.Errorf("the bad label is not said: %s %w", said, err)
	}
	return nil
}

// problems are those that the program under test tells of.
func (t *trial) problems(ctx context.Context) (string, error) {
	status, raw, err := t.s.Call(ctx, http.MethodGet, t.state, nil)
	if err != nil || status != http.StatusOK {
		return "", fmt.Errorf("%s: %d %w", t.state, status, err)
	}
	var st struct{ Problems map[string][]string }
	err = json.Unmarshal(raw, &st)
	return fmt.Sprint(st.Problems), err
}

// trouble has the engine hang for a while, as a process that is stopped does. Its containers go on, and so must
// requests.
func (t *trial) trouble(ctx context.Context) error {
	state := cmp.Or(os.Getenv("MARCHPROXY_ENGINE_DIR"), "/var/tmp/marchproxy-engine")
	raw, err := os.ReadFile(filepath.Join(state, "dockerd.pid"))
	if err != nil { // it is not one of scripts/docker
		raw, err = os.ReadFile("/var/run/docker.pid")
	}
	if err != nil {
		return fmt.Errorf("the engine's process is not known, so that it cannot be made to hang; -hang 0 leaves that out: %w",
			err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return err
	}
	fmt.Printf("the engine hangs for %s\n", t.hang)
	before := t.failed.Load()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	select {
	case <-time.After(t.hang): // that is the trouble
	case <-ctx.Done():
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		return err
	}
	return t.after(ctx, before, 3)
}

// restartEngine restarts the engine, whose containers go on.
func (t *trial) restartEngine(ctx context.Context) error {
	fmt.Println("the engine is restarted")
	if err := t.settle(ctx); err != nil {
		return err
	}
	before := t.failed.Load()
	if _, err := t.docker(ctx, "engine", "restart"); err != nil {
		return fmt.Errorf("-restart=false leaves this out: %w", err)
	}
	return t.after(ctx, before, 4)
}

// after says what failed in the engine's absence, and has something happen, which is seen again.
func (t *trial) after(ctx context.Context, failed int64, scale int) error {
	if n := t.failed.Load() - failed; n > 0 {
		return fmt.Errorf("%d requests failed meanwhile: %s", n, strings.Join(t.examples, "; "))
	}
	return t.compose(ctx, "up", "--detach", "--no-recreate", "--scale", service(1)+"="+strconv.Itoa(scale), service(1))
}
