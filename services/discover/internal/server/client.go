package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/tracing"

	"github.com/marchproxy/marchproxy/services/discover/internal/reconcile"
)

// client is a [reconcile.Writer] over HTTP.
type client struct {
	url, token string
	http       *http.Client
}

func newClient(url, token string, id *identity.Identity) *client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 8
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{Config: id.Client(host)}).DialContext(ctx, network, addr) // with the certificate of now
	}
	return &client{strings.TrimRight(url, "/"), token, &http.Client{Transport: t, Timeout: 20 * time.Second}}
}

func (c *client) do(ctx context.Context, method, path string, query url.Values, body, into any) error {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path+"?"+query.Encode(), bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if t := tracing.Traceparent(tracing.Of(ctx)); t != "" {
		req.Header.Set("Traceparent", t)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the api at %s: %w", c.url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("the api's answer: %w", err)
	}
	if resp.StatusCode < 300 {
		return json.Unmarshal(answer, into)
	}
	message := problem(resp.Status, answer)
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return fmt.Errorf("the api at %s answers %s", c.url, message)
	}
	return &reconcile.Refused{Status: resp.StatusCode, Message: message}
}

// problem is the api's refusal in one line.
func problem(status string, raw []byte) string {
	var p api.Problem
	if json.Unmarshal(raw, &p) != nil || p.Status == 0 {
		return status
	}
	words := []string{}
	for _, v := range p.Errors[:min(len(p.Errors), 3)] {
		words = append(words, strings.TrimPrefix(v.Path+" "+v.Message, "$ "))
	}
	if len(words) == 0 {
		words = append(words, p.Detail, p.Title)
	}
	return strings.Join(words, "; ")
}

// Apply implements [reconcile.Writer].
func (c *client) Apply(ctx context.Context, r api.ApplyRequest) (int64, error) {
	var out api.ApplyResult
	err := c.do(ctx, http.MethodPost, "/v1/apply", nil, r, &out)
	return out.Revision, err
}

// Revision implements [reconcile.Writer].
func (c *client) Revision(ctx context.Context) (int64, error) {
	var page api.ObjectList
	err := c.do(ctx, http.MethodGet, "/v1/endpoint-sets", url.Values{"limit": {"1"}}, nil, &page)
	return page.Revision, err
}

// Labelled implements [reconcile.Writer].
func (c *client) Labelled(ctx context.Context, kind, name, value string) (out []api.Object, err error) {
	k, _ := resource.KindByName(kind)
	query := url.Values{"label": {name + "=" + value}, "limit": {"1000"}}
	for {
		var page api.ObjectList
		if err := c.do(ctx, http.MethodGet, "/v1/"+k.Path, query, nil, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Items...)
		if page.NextCursor == "" {
			return out, nil
		}
		query.Set("cursor", page.NextCursor)
	}
}
