package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/engine"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// command runs a program of the project's directory.
func (t *trial) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.root
	return cmd
}

func (t *trial) docker(ctx context.Context, args ...string) (string, error) {
	cmd := t.command(ctx, filepath.Join(t.root, "scripts", "docker"), args...)
	var out, says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &says
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s", strings.Join(args[:min(len(args), 4)], " "), err, says.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (t *trial) compose(ctx context.Context, args ...string) error {
	_, err := t.docker(ctx, append([]string{
		"compose", "--progress", "quiet", "-p", project, "-f",
		filepath.Join(t.dir, "compose.yaml"),
	}, args...)...)
	return err
}

func service(i int) string { return fmt.Sprintf("s%d", i) }

// cluster is the Service's name at Envoy.
func cluster(service string) string { return project + "-" + service }

// prepare makes the image and the compose file.
func (t *trial) prepare(ctx context.Context) error {
	if _, err := t.docker(ctx, "version"); err != nil {
		return err
	}
	build := t.command(ctx, "go", "build", "-trimpath", "-o", filepath.Join(t.dir, "backend"),
		"./test/cmd/check-discover/backend")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(t.dir, "Dockerfile"),
		[]byte("FROM scratch\nCOPY backend /backend\nEXPOSE 8080\nENTRYPOINT [\"/backend\"]\n"), 0o600); err != nil {
		return err
	}
	if _, err := t.docker(ctx, "build", "--quiet", "--tag", image, t.dir); err != nil {
		return err
	}
	var f strings.Builder
	f.WriteString("services:\n")
	for i := range t.services {
		t.write(&f, i, nil)
	}
	return os.WriteFile(filepath.Join(t.dir, "compose.yaml"), []byte(f.String()), 0o600)
}

// write writes a service of the compose file. Every third one has health checks.
func (t *trial) write(f *strings.Builder, i int, more map[string]string) {
	fmt.Fprintf(f, "  %s:\n    image: %s\n    stop_grace_period: 10s\n    deploy: {replicas: 2}\n    labels:\n      "+
		"marchproxy.enable: 'true'\n      marchproxy.routes.r.hosts: %s.test\n",
		service(i), image, service(i))
	for label, value := range more {
		fmt.Fprintf(f, "      %s: '%s'\n", label, value)
	}
	if i%3 == 0 {
		f.WriteString("    healthcheck: {test: [CMD, /backend, check], interval: 1s, timeout: 5s, retries: 1, " +
			"start_period: 10s, start_interval: 200ms}\n")
	}
}

// begin starts the program under test with a token that is bound.
func (t *trial) begin(ctx context.Context) error {
	status, raw, err := t.s.Call(ctx, http.MethodPost, t.s.API+"/v1/tokens", map[string]any{
		"name": "discover", "role": "editor", "bounds": map[string]any{
			"owners": []string{"discover/check"},
			"kinds":  []string{"Service", "Route", "EndpointSet"},
		},
	})
	var token struct{ Token string }
	if err != nil || status != http.StatusCreated || json.Unmarshal(raw, &token) != nil || token.Token == "" {
		return fmt.Errorf("a token: %d %s %w", status, raw, err)
	}
	t.token = token.Token
	return t.discoverAt(ctx, t.host)
}

// discoverAt starts the program under test at an engine.
func (t *trial) discoverAt(ctx context.Context, host string) error {
	ports, err := porttest.Take(1)
	if err != nil {
		return err
	}
	addr := "127.0.0.1:" + strconv.Itoa(ports[0])
	t.state = "http://" + addr + "/v1/state"
	program, err := harness.Program("marchproxy-discover")
	if err != nil {
		return err
	}
	t.discover = t.command(ctx, program)
	t.discover.Env = append(os.Environ(), "MARCHPROXY_API="+t.s.API, "MARCHPROXY_TOKEN="+t.token,
		"DISCOVER_SITE=check", "DISCOVER_HTTP_ADDR="+addr, "DOCKER_HOST="+host)
	log, err := os.OpenFile(filepath.Join(t.dir, "discover.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	t.discover.Stdout, t.discover.Stderr = log, log
	return t.discover.Start()
}

// events are those that happen until the context ends, of one engine after the other: a restart ends the stream.
func (t *trial) events(ctx context.Context) <-chan engine.Event {
	out := make(chan engine.Event, 1000)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			if err := t.stream(ctx, out); err != nil && ctx.Err() == nil {
				fmt.Println("the engine's events:", err)
			}
			select {
			case <-time.After(100 * time.Millisecond): // there may be no engine for a while
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// stream reads the events of an engine from the last one on, until it ends.
func (t *trial) stream(ctx context.Context, out chan<- engine.Event) error {
	query := url.Values{"filters": {`{"type":["container"],"label":["com.docker.compose.project=` + project + `"]}`}}
	if t.last > 0 {
		query.Set("since", fmt.Sprintf("%d.%09d", t.last/1e9, t.last%1e9))
	}
	events, err := t.engine.Events(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = events.Close() }() // read only
	for {
		e, err := events.Next()
		if err != nil {
			return err
		}
		t.last = e.TimeNano
		out <- e
	}
}

// address is a container's in its only network.
func (t *trial) address(ctx context.Context, id string) (string, error) {
	var c struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := t.engine.JSON(ctx, "/containers/"+id+"/json", nil, 4<<20, &c); err != nil {
		return "", err
	}
	for _, n := range c.NetworkSettings.Networks {
		return n.IPAddress, nil
	}
	return "", fmt.Errorf("container %s is in no network", id)
}

// follow keeps what should be at Envoy.
func (t *trial) follow(events <-chan engine.Event) {
	addresses := map[string]string{} // by container
	for e := range events {
		s := e.Actor.Attributes["com.docker.compose.service"]
		checked := e.Actor.Attributes["image"] == image && isChecked(s)
		id := e.Actor.ID
		at := time.Unix(0, e.TimeNano)
		what := ""
		switch action, _, _ := strings.Cut(e.Action, ":"); {
		case action == "start":
			addr, err := t.address(context.Background(), id)
			if err != nil || addr == "" {
				continue // it has gone meanwhile
			}
			addresses[id] = addr
			if !checked {
				what = "ready"
			}
		case e.Action == "health_status: healthy":
			what = "ready"
		case e.Action == "health_status: unhealthy", action == "die":
			what = "gone"
		case action == "kill" && slices.Contains([]string{"15", "9"}, e.Actor.Attributes["signal"]):
			what = "draining"
		}
		addr := addresses[id]
		if what == "" || addr == "" {
			continue
		}
		t.mu.Lock()
		if e.Actor.Attributes["signal"] == "9" {
			t.killed[s] = at
		}
		t.expected[addr] = &expectation{cluster: cluster(s), what: what, at: at}
		t.states++
		if t.up[s] == nil {
			t.up[s] = map[string]bool{}
		}
		if what == "ready" {
			if len(t.up[s]) == 0 { // it had none until now
				t.since[s] = time.Now()
			}
			t.up[s][id] = true
		} else if delete(t.up[s], id); len(t.up[s]) == 0 {
			t.since[s] = time.Now()
		}
		t.mu.Unlock()
	}
}

func isChecked(service string) bool {
	n, err := strconv.Atoi(strings.TrimPrefix(service, "s"))
	return err == nil && n%3 == 0
}
