// Package catalog asks HTTP catalogs that hold a question back until something has changed (blocking queries), as
// Nomad's and Consul's do, and makes labels of their tags.
package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Client asks one catalog.
type Client struct {
	// Address is its URL, Header and Token how it knows who asks, IndexHeader where it says the index of an answer.
	Address, Header, Token, IndexHeader string
	// Wait is how long a question is held back at most, 60 s where 0.
	Wait time.Duration
}

// Get asks for a path, until its index is above one; 0 for at once. It returns the index to ask with next time: 1 at
// the least, and 0 where it has gone back, as after a restore.
func (c *Client) Get(
	ctx context.Context, path string, query url.Values, index uint64, into any,
) (next uint64, err error) {
	wait := c.Wait
	if wait == 0 {
		wait = time.Minute
	}
	q := url.Values{"index": {strconv.FormatUint(index, 10)}, "wait": {strconv.FormatInt(wait.Milliseconds(), 10) + "ms"}}
	for name, values := range query {
		q[name] = values
	}
	// The catalog adds a sixteenth at most, so that not all come back at once.
	ctx, cancel := context.WithTimeout(ctx, wait+wait/8+10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.Address, "/")+path+"?"+q.Encode(), nil)
	if err != nil {
		return 0, err
	}
	if c.Token != "" {
		req.Header.Set(c.Header, c.Token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET %s is answered with %s %s", path, resp.Status,
			strings.TrimSpace(string(raw[:min(len(raw), 300)])))
	}
	// One that has no leader, or has lost it, may know nothing of what there is.
	for name, values := range resp.Header {
		if strings.HasSuffix(name, "-Knownleader") && slices.Contains(values, "false") {
			return 0, fmt.Errorf("GET %s is answered by a server that knows no leader", path)
		}
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return 0, fmt.Errorf("the answer to GET %s: %w", path, err)
	}
	next, err = strconv.ParseUint(resp.Header.Get(c.IndexHeader), 10, 64)
	switch {
	case err != nil || next == 0:
		next = 1 // so that the next question waits
	case next < index:
		next = 0
	}
	return next, nil
}

// Labels makes labels of tags: marchproxy.enable, and marchproxy.routes.web.hosts=a.example.com. One that is only a
// name is true.
func Labels(tags []string) map[string]string {
	out := map[string]string{}
	for _, t := range tags {
		name, value, said := strings.Cut(t, "=")
		if !said {
			value = "true"
		}
		out[strings.TrimSpace(name)] = value
	}
	return out
}
