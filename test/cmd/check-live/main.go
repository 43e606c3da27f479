// Command check-live proves what wait=live says: it makes changes with wait=live and follows each at once
// with a request on a new connection and one on an old connection. No request may see the old behaviour.
// Routes are created, changed and deleted, and re-pointed between services.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

func main() {
	changes := flag.Int("changes", 5000, "changes")
	hosts := flag.Int("hosts", 50, "hosts that the changes go round")
	flag.Parse()
	if err := run(context.Background(), *changes, *hosts); err != nil {
		fmt.Fprintln(os.Stderr, "check-live:", err)
		os.Exit(1)
	}
}

func backend(says string) (*httptest.Server, int, error) {
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, says)
	}))
	port, err := strconv.Atoi(b.URL[strings.LastIndexByte(b.URL, ':')+1:])
	return b, port, err
}

type checker struct {
	s     *harness.System
	stale int
	old   []*probe.Conn
}

func run(ctx context.Context, changes, hosts int) (err error) {
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "2")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var objects []map[string]any
	for _, name := range []string{"one", "two"} {
		b, port, err := backend(name)
		if err != nil {
			return err
		}
		defer b.Close()
		objects = append(objects, map[string]any{
			"kind": "Service", "name": name,
			"spec": map[string]any{"endpoints": []any{map[string]any{"host": "127.0.0.1", "port": port}}},
		})
	}
	if status, body, err := s.Call(ctx, http.MethodPost, s.API+"/v1/apply?wait=live",
		map[string]any{"resources": objects}); err != nil || status != 200 {
		return errors.Join(fmt.Errorf("apply: %d %s", status, body), err)
	}
	c := &checker{s: s}
	for range 4 { // on both workers, most likely
		p := probe.New(s.Proxy)
		defer p.Close()
		if _, _, err := p.Get("nobody.example.com", "/"); err != nil {
			return err
		}
		c.old = append(c.old, p)
	}
	t0 := time.Now()
	for k := range changes {
		if err := c.change(ctx, k, k%hosts, k/hosts); err != nil {
			return fmt.Errorf("change %d: %w", k, err)
		}
	}
	fmt.Printf("%d changes, %d requests, %d stale, %.1f ms a change\n", changes, 2*changes, c.stale,
		float64(time.Since(t0).Milliseconds())/float64(changes))
	if c.stale > 0 {
		return errors.New("wait=live returned before the change was live")
	}
	return nil
}

// change takes a host through its life: made, marked anew, pointed elsewhere, deleted.
func (c *checker) change(ctx context.Context, k, i, round int) error {
	host, url := fmt.Sprintf("live%d.example.com", i), fmt.Sprintf("%s/v1/routes/live%d?wait=live", c.s.API, i)
	mark := strconv.Itoa(k)
	service := []string{"one", "two"}[round/2%2]
	method, body := http.MethodPut, any(map[string]any{"spec": map[string]any{
		"hosts": []string{host}, "backends": []any{map[string]any{"service": service}},
		"response_headers": map[string]any{"set": []any{map[string]any{"name": "x-mark", "value": mark}}},
	}})
	if round%4 == 3 {
		method, body = http.MethodDelete, nil
	}
	status, raw, err := c.s.Call(ctx, method, url, body)
	if err != nil {
		return err
	}
	var answer struct{ Live api.Live }
	if err := json.Unmarshal(raw, &answer); err != nil || status >= 300 || !answer.Live.Live {
		return fmt.Errorf("%s: %d %s", method, status, raw)
	}
	fresh := probe.New(c.s.Proxy)
	defer fresh.Close()
	for _, p := range []*probe.Conn{fresh, c.old[k%len(c.old)]} {
		a, _, err := p.Get(host, "/")
		if err != nil {
			return err
		}
		good := a.Status == 200 && a.Body == service && a.Header.Get("X-Mark") == mark
		if method == http.MethodDelete {
			good = a.Status == 404
		}
		if !good {
			c.stale++
			fmt.Printf("stale: change %d (%s) on %s: %d %q mark %s, want %s\n", k, method, host, a.Status, a.Body,
				a.Header.Get("X-Mark"), mark)
		}
	}
	return nil
}
