package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

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
	t.discover.Env = append(os.Environ(), "MARCHPROXY_API="+t.s.API, "MARCHPROXY_TOKEN="+token.Token,
		"DISCOVER_SITE=check", "DISCOVER_HTTP_ADDR="+addr)
	log, err := os.Create(filepath.Join(t.dir, "discover.log"))
	if err != nil {
		return err
	}
	t.discover.Stdout, t.discover.Stderr = log, log
	return t.discover.Start()
}

// event is one of the engine's, of a container of this project.
type event struct {
	Action   string
	TimeNano int64 `json:"timeNano"`
	Actor    struct {
		ID         string
		Attributes map[string]string
	}
}

// events are those that happen until the context ends, of one engine after the other: a restart ends the stream.
func (t *trial) events(ctx context.Context) <-chan event {
	out := make(chan event, 1000)
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
func (t *trial) stream(ctx context.Context, out chan<- event) error {
	query := url.Values{"filters": {`{"type":["container"],"label":["com.docker.compose.project=` + project + `"]}`}}
	if t.last > 0 {
		query.Set("since", fmt.Sprintf("%d.%09d", t.last/1e9, t.last%1e9))
	}
	body, err := t.engine.get(ctx, "/events?"+query.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read only
	for dec := json.NewDecoder(body); ; {
		var e event
		if err := dec.Decode(&e); err != nil {
			return err
		}
		t.last = e.TimeNano
		out <- e
	}
}

// engine is the Docker engine at its socket. What is timed is asked there: a command for each question takes seconds
// on a busy machine, in which the check itself would be late.
type engine struct {
	base   string
	client *http.Client
}

func newEngine() (engine, error) {
	host := cmp.Or(os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock")
	u, err := url.Parse(host)
	switch {
	case err != nil:
		return engine{}, fmt.Errorf("DOCKER_HOST: %w", err)
	case u.Scheme == "unix":
		return engine{"http://docker", &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
			},
		}}}, nil
	case u.Scheme == "tcp":
		return engine{"http://" + u.Host, &http.Client{}}, nil
	}
	return engine{}, fmt.Errorf("DOCKER_HOST is %q; give unix:///PATH or tcp://HOST:PORT", host)
}

// get asks for something; who takes it closes it.
func (e engine) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close() // the status says it
		return nil, fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return resp.Body, nil
}

// address is a container's in its only network.
func (e engine) address(ctx context.Context, id string) (string, error) {
	body, err := e.get(ctx, "/containers/"+id+"/json")
	if err != nil {
		return "", err
	}
	defer func() { _ = body.Close() }() // read only
	var c struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := json.NewDecoder(body).Decode(&c); err != nil {
		return "", err
	}
	for _, n := range c.NetworkSettings.Networks {
		return n.IPAddress, nil
	}
	return "", fmt.Errorf("container %s is in no network", id)
}

// follow keeps what should be at Envoy.
func (t *trial) follow(events <-chan event) {
	addresses := map[string]string{} // by container
	for e := range events {
		s := e.Actor.Attributes["com.docker.compose.service"]
		checked := e.Actor.Attributes["image"] == image && isChecked(s)
		id := e.Actor.ID
		at := time.Unix(0, e.TimeNano)
		what := ""
		switch action, _, _ := strings.Cut(e.Action, ":"); {
		case action == "start":
			addr, err := t.engine.address(context.Background(), id)
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
