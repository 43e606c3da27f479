package envoy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// admin is Envoy's admin interface.
type admin struct {
	url    string
	client *http.Client
}

func newAdmin(addr string) admin {
	return admin{"http://" + addr, &http.Client{Timeout: 5 * time.Second}}
}

func (a admin) do(ctx context.Context, method, path string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, nil)
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

// stats are the counters and gauges whose names the expression matches.
func (a admin) stats(ctx context.Context, filter string) (map[string]int64, error) {
	status, raw, err := a.do(ctx, http.MethodGet, "/stats?format=json&filter="+url.QueryEscape(filter))
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

// drain has Envoy close each connection after its next response, and waits until no request is in flight.
func (s *Supervisor) drain(ctx context.Context, exited <-chan error) error {
	if _, _, err := s.admin.do(ctx, http.MethodPost, "/healthcheck/fail"); err != nil {
		return err
	}
	if _, _, err := s.admin.do(ctx, http.MethodPost, "/drain_listeners?graceful&skip_exit"); err != nil {
		return err
	}
	// Clients that send one request after the other need a moment to be told.
	for quiet := 0; quiet < 10; quiet++ {
		active, err := s.admin.stats(ctx, `^http\..*\.downstream_rq_active$`)
		if err != nil {
			return err
		}
		for name, n := range active {
			if n > 0 && !strings.HasPrefix(name, "http.admin.") { // that is this very request
				quiet = 0
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case err := <-exited:
			_ = err // it has ended, and how does not matter
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
