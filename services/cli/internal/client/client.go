// Package client speaks to the api over HTTP: requests, problems as errors with a remedy, pages, and the
// stream of events. It knows nothing of the terminal.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Client is one api and the token to it.
type Client struct {
	// URL without a path, such as http://127.0.0.1:8000.
	URL string
	// Token is sent as a bearer token; "" for none.
	Token string
	// Notify, where set, is told why a request is sent again.
	Notify func(reason string)

	http http.Client
}

// TLS has it connect so, where the URL is https.
func (c *Client) TLS(t *tls.Config) { c.http.Transport = Transport(t) }

// Transport is Go's own way of connecting, with a TLS configuration where the URL is https.
func Transport(t *tls.Config) *http.Transport {
	out := http.DefaultTransport.(*http.Transport).Clone()
	out.TLSClientConfig = t
	return out
}

// Request is one request.
type Request struct {
	Method, Path string
	Query        url.Values
	// Body is encoded as JSON; nil for none.
	Body any
	// IfMatch is an ETag, "" for none.
	IfMatch string
	// Once sends an Idempotency-Key, and sends again what was not answered: the api acts at most once.
	Once bool
}

// insistence is how long a request with an idempotency key is sent again before its failure is reported;
// an api that is being restarted needs less.
const insistence = 15 * time.Second

// Do sends a request and decodes the answer into a value. The error of an answer that is not 2xx is a
// [*Problem].
func (c *Client) Do(ctx context.Context, r Request, into any) (http.Header, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = json.Marshal(r.Body); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	key := ""
	if r.Once {
		key = uuid.NewString()
	}
	began := time.Now()
	pause := 100 * time.Millisecond
	for n := 1; ; n++ {
		head, err := c.once(ctx, r, body, key, into)
		if err == nil || !r.Once || time.Since(began) > insistence || !worthRepeating(err, n == 1) || ctx.Err() != nil {
			return head, err
		}
		if c.Notify != nil {
			c.Notify(fmt.Sprintf("%v; sending again", err))
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// worthRepeating says that it is not known whether a request was acted on, or that it was not, for a
// reason that passes. Where nobody listened from the beginning, nobody will.
func worthRepeating(err error, first bool) bool {
	var p *Problem
	if errors.As(err, &p) {
		return p.Status == http.StatusServiceUnavailable || p.Status == http.StatusBadGateway
	}
	var u *Unreachable
	var dial *net.OpError
	if first && errors.As(err, &dial) && dial.Op == "dial" {
		return false
	}
	return errors.As(err, &u)
}

func (c *Client) once(ctx context.Context, r Request, body []byte, key string, into any) (http.Header, error) {
	resp, err := c.send(ctx, r, body, key)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode >= 300 {
		return resp.Header, problemOf(resp, raw, c)
	}
	if into == nil || len(raw) == 0 {
		return resp.Header, nil
	}
	if resp.Header.Get("X-Request-Id") == "" { // the api's answers all have one
		return resp.Header, &foreignError{c.URL, "its answer has no X-Request-Id"}
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return resp.Header, &foreignError{c.URL, misfit(raw, err)}
	}
	if !known(raw, into) {
		return resp.Header, &foreignError{c.URL, "its answer has none of the members that belong there"}
	}
	return resp.Header, nil
}

// foreignError says that something else than an api answers at its address.
type foreignError struct{ url, reason string }

func (e *foreignError) Error() string {
	return fmt.Sprintf("what answers at %s is no MarchProxy api (%s); --api or MARCHPROXY_API names another address",
		e.url, e.reason)
}

// known says whether an answer has at least one of the members that a value takes: another server's JSON
// fits into it as well, and leaves it empty.
func known(raw []byte, into any) bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return false
	}
	t := reflect.TypeOf(into).Elem()
	if t.Kind() != reflect.Struct {
		return true
	}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if _, there := members[name]; there {
			return true
		}
	}
	return false
}

// Stream sends a request, and hands over the answer's body as it comes; who takes it closes it.
func (c *Client) Stream(ctx context.Context, r Request) (io.ReadCloser, error) {
	resp, err := c.send(ctx, r, nil, "")
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, c.refused(resp)
}

// refused reads why a request was refused.
func (c *Client) refused(resp *http.Response) error {
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return c.unreachable(err)
	}
	return problemOf(resp, raw, c)
}

func (c *Client) send(ctx context.Context, r Request, body []byte, key string) (*http.Response, error) {
	u, err := url.Parse(strings.TrimRight(c.URL, "/") + r.Path)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("the api's address %q is not a URL such as http://127.0.0.1:8000; --api or MARCHPROXY_API "+
			"names it", c.URL)
	}
	u.RawQuery = r.Query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if r.IfMatch != "" {
		req.Header.Set("If-Match", r.IfMatch)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, c.unreachable(err)
	}
	return resp, nil
}

// Unreachable says that the api did not answer.
type Unreachable struct {
	URL string
	Err error
}

func (c *Client) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the rest repeats the address
	}
	return &Unreachable{c.URL, err}
}

// Error says what to do.
func (e *Unreachable) Error() string {
	return fmt.Sprintf("the api at %s does not answer (%v); is it running? --api or MARCHPROXY_API names another",
		e.URL, e.Err)
}

// Unwrap is the network's error.
func (e *Unreachable) Unwrap() error { return e.Err }

func misfit(raw []byte, err error) string {
	if !json.Valid(raw) {
		return "its answer is not JSON"
	}
	v := resource.Misfit(raw, err)
	return "in its answer, " + v.Path + " " + v.Message
}
