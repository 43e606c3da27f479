// Package envoyadmin asks an Envoy's admin interface, and says in one sentence why an Envoy is not ready.
package envoyadmin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Admin is an Envoy's admin interface.
type Admin struct {
	addr   string
	client *http.Client
}

// New returns the admin interface at host:port, or at a Unix socket where addr is a path. An answer may take 5 seconds.
func New(addr string) Admin {
	t := &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute}
	if strings.HasPrefix(addr, "/") {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		}
	}
	return Admin{addr, &http.Client{Timeout: 5 * time.Second, Transport: t}}
}

// url is that of a path with its query.
func (a Admin) url(path string) string {
	if strings.HasPrefix(a.addr, "/") {
		return "http://envoy" + path // a socket has no name
	}
	return "http://" + a.addr + path
}

// Do sends a request without a body and returns the answer's status and body.
func (a Admin) Do(ctx context.Context, method, path string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url(path), nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, raw, err
}

// Stats are the counters and gauges whose names the expression matches.
func (a Admin) Stats(ctx context.Context, filter string) (map[string]int64, error) {
	status, raw, err := a.Do(ctx, http.MethodGet, "/stats?format=json&filter="+url.QueryEscape(filter))
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("the admin interface answers %d", status)
	}
	var doc struct {
		Stats []struct {
			Name  string      `json:"name"`
			Value json.Number `json:"value"`
		} `json:"stats"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("read statistics: %w", err)
	}
	out := make(map[string]int64, len(doc.Stats))
	for _, s := range doc.Stats {
		if n, err := s.Value.Int64(); err == nil {
			out[s.Name] = n
		}
	}
	return out, nil
}
