package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
)

const (
	// rate is how many requests a second are sent, and writes are one a second.
	rate = 200
	// converge is how long everything may take to be as it was.
	converge = 30 * time.Second
)

// killed are one container of each kind; PostgreSQL is one, and traffic goes on without it.
var killed = []string{"nats", "api", "xds", "proxy", "postgres"}

// highAvailability has two of everything take the place of what runs, and breaks it.
func (c *checker) highAvailability(ctx context.Context, tmp string) error {
	if err := c.down(); err != nil { // what the guide left has the place of the demo
		return err
	}
	c.files = append(c.files, "-f", filepath.Join(c.dir, "compose.ha.yaml"))
	if err := c.compose(ctx, "--profile", "demo", "up", "--wait", "--wait-timeout", "300",
		"--remove-orphans"); err != nil {
		return errors.Join(err, c.logs())
	}
	if err := served(ctx, "Hello from backend"); err != nil {
		return err
	}
	l, err := c.load()
	if err != nil {
		return err
	}
	if err := l.converged(ctx); err != nil {
		return errors.Join(err, c.logs())
	}
	c.say("two of everything are up")
	for _, service := range killed {
		if err := c.kill(ctx, l, service); err != nil {
			return errors.Join(fmt.Errorf("one %s is killed: %w", service, err), c.logs())
		}
	}
	if err := c.upgrade(ctx, tmp, l); err != nil {
		return errors.Join(fmt.Errorf("upgrade: %w", err), c.logs())
	}
	return nil
}

// kill kills a container under load, starts it again, and looks for what was lost.
func (c *checker) kill(ctx context.Context, l *load, service string) error {
	return c.under(ctx, l, service+" is killed", func() error {
		if err := c.compose(ctx, "kill", "-s", "KILL", service); err != nil {
			return err
		}
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
		return c.compose(ctx, "up", "-d", "--wait", "--no-deps", "--no-recreate", service)
	})
}

// upgrade replaces every container of ours by one of another version of its image, as docs/deploy-compose.md has it.
func (c *checker) upgrade(ctx context.Context, tmp string, l *load) error {
	ha := c.files
	if err := c.build(ctx, tmp, "next"); err != nil {
		return err
	}
	c.files = ha
	if err := c.compose(ctx, "run", "--rm", "migrate"); err != nil {
		return err
	}
	for _, service := range []string{"api", "api-2", "xds", "xds-2", "proxy", "proxy-2", "nats", "nats-2", "nats-3"} {
		err := c.under(ctx, l, service+" is replaced", func() error {
			args := []string{"up", "-d", "--wait", "--no-deps"}
			if strings.HasPrefix(service, "nats") {
				args = append(args, "--force-recreate") // its image is the same
			}
			return c.compose(ctx, append(args, service)...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// under does something under load, and says what became of the load.
func (c *checker) under(ctx context.Context, l *load, what string, do func() error) error {
	end := l.begin(ctx)
	err := pause(ctx, 3*time.Second)
	if err == nil {
		err = do()
	}
	began := time.Now()
	if err == nil {
		err = l.converged(ctx)
	}
	took := time.Since(began)
	sent, failed, written, first := end()
	switch {
	case err != nil:
		return err
	case sent < rate:
		return fmt.Errorf("only %d requests were sent", sent)
	case failed > 0:
		return fmt.Errorf("%d of %d requests failed, the first: %w", failed, sent, first)
	}
	if err := l.kept(ctx); err != nil {
		return err
	}
	c.say("%s: %d requests, none failed; %d writes, none lost; converged %.1f s after it was back",
		what, sent, written, took.Seconds())
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// load sends requests and writes.
type load struct {
	// client is an operator's, of the api, and token what it may do.
	client *http.Client
	token  string

	mu sync.Mutex
	// acknowledged is the last value that was accepted of each route.
	acknowledged map[string]string
	n            int
}

func (c *checker) load() (*load, error) {
	id := filepath.Join(c.dir, "secrets", "pki", "issued", "operator-admin")
	pair, err := tls.LoadX509KeyPair(filepath.Join(id, "cert.pem"), filepath.Join(id, "key.pem"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(id, "ca.pem"))
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(filepath.Join(c.dir, "secrets", "admin-token"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	t := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
	}}
	return &load{
		client: &http.Client{Transport: t, Timeout: 5 * time.Second}, token: strings.TrimSpace(string(token)),
		acknowledged: map[string]string{},
	}, nil
}

// begin sends requests and writes until the function that it returns is called, which waits for the last of them.
func (l *load) begin(ctx context.Context) (end func() (sent, failed, written int, first error)) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var sent, failed, written int
	var first error
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 50}}
	wg.Go(func() {
		for tick := time.NewTicker(time.Second / rate); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			wg.Go(func() {
				status, body, err := get(context.WithoutCancel(ctx), client, "http://localhost:10000/")
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("%d %s", status, body)
				}
				mu.Lock()
				defer mu.Unlock()
				sent++
				if err != nil {
					failed++
					if first == nil {
						first = fmt.Errorf("at %s: %w", time.Now().Format(time.TimeOnly), err)
					}
				}
			})
		}
	})
	wg.Go(func() {
		for pause(ctx, time.Second) == nil {
			if l.write(context.WithoutCancel(ctx)) == nil {
				mu.Lock()
				written++
				mu.Unlock()
			}
		}
	})
	return func() (int, int, int, error) {
		cancel()
		wg.Wait()
		return sent, failed, written, first
	}
}

// write changes one of ten routes, and tries again with the same key until an api has answered.
func (l *load) write(ctx context.Context) error {
	l.mu.Lock()
	l.n++
	n := l.n
	l.mu.Unlock()
	name, value := fmt.Sprintf("check-%d", n%10), fmt.Sprintf("value-%d", n)
	spec := map[string]any{"spec": map[string]any{
		"hosts": []string{name + ".example.com"}, "direct_response": map[string]any{"status": 200, "body": value},
	}}
	return await(ctx, time.Minute, "a write", func(ctx context.Context) error {
		status, body, err := l.call(ctx, http.MethodPut, "/v1/routes/"+name, spec, fmt.Sprintf("check-%d", n))
		if err != nil {
			return err
		}
		if status >= 300 {
			return fmt.Errorf("%d %s", status, body)
		}
		l.mu.Lock()
		l.acknowledged[name] = value
		l.mu.Unlock()
		return nil
	})
}

func (l *load) call(ctx context.Context, method, path string, body any, key string) (int, string, error) {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return 0, "", err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://localhost:8000"+path, bytes.NewReader(raw))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+l.token)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	return do(l.client, req)
}

// converged waits until both proxies serve everything by both xDS servers, and nothing is wrong.
func (l *load) converged(ctx context.Context) error {
	return await(ctx, converge, "everything to be as it was", func(ctx context.Context) error {
		status, body, err := l.call(ctx, http.MethodGet, "/v1/status", nil, "")
		if err != nil {
			return err
		}
		var s api.Status
		if err := json.Unmarshal([]byte(body), &s); err != nil || status != http.StatusOK {
			return errors.Join(err, fmt.Errorf("%d %s", status, body))
		}
		// Writes go on meanwhile: the last two may be on their way.
		behind := s.Revision - s.LiveRevision
		if s.Proxies != 2 || len(s.Xds) != 2 || s.LaggingProxies != 0 || len(s.Troubles) != 0 || behind > 2 {
			return fmt.Errorf("%d proxies, %d xDS servers, %d lag, live %d of %d, troubles %v",
				s.Proxies, len(s.Xds), s.LaggingProxies, s.LiveRevision, s.Revision, s.Troubles)
		}
		return nil
	})
}

// kept looks whether the last value that was accepted of each route is what is stored, and what is served.
func (l *load) kept(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, want := range l.acknowledged {
		err := await(ctx, converge, "the last write of "+name, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost:10000/", nil)
			if err != nil {
				return err
			}
			req.Host = name + ".example.com"
			_, body, err := do(http.DefaultClient, req)
			if err == nil && body != want {
				err = fmt.Errorf("%q is served, and %q was accepted", body, want)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	return do(client, req)
}

func do(client *http.Client, req *http.Request) (int, string, error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}
