// Package engine asks a Docker engine over HTTP: one answer at a time, and the stream of its events. The engine's own
// client would bring some eighty packages for these.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

// Client speaks to one engine. It is safe for concurrent use.
type Client struct {
	base *url.URL
	http *http.Client
}

// dialing is how long a connection may take to be made, at the most.
const dialing = 5 * time.Second

// New makes a client of the engine at unix:///PATH or tcp://HOST:PORT; nobody is asked yet. The head of an answer has to
// come within patience. A socket is found by its path each time: a restart of the engine replaces it.
func New(host string, patience time.Duration) (*Client, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("%q is no address of a Docker engine such as unix:///var/run/docker.sock: %w", host, err)
	}
	dialer := &net.Dialer{Timeout: min(patience, dialing)}
	t := &http.Transport{
		ResponseHeaderTimeout: patience, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
		DisableCompression: true,
	}
	c := &Client{http: &http.Client{Transport: t}}
	switch {
	case u.Scheme == "unix" && u.Path != "":
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		}
		c.base = &url.URL{Scheme: "http", Host: "docker"}
	case (u.Scheme == "tcp" || u.Scheme == "http") && u.Host != "":
		t.DialContext = dialer.DialContext
		c.base = &url.URL{Scheme: "http", Host: u.Host}
	default:
		return nil, fmt.Errorf("%q is no address of a Docker engine such as unix:///var/run/docker.sock or "+
			"tcp://host:2375", host)
	}
	return c, nil
}

// Get asks for a path; who takes the answer closes it. An answer that is not 200 is a [*StatusError].
func (c *Client) Get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	u := *c.base
	u.Path, u.RawQuery = path, query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // the status says enough
	return nil, &StatusError{path, resp.StatusCode, strings.TrimSpace(string(raw))}
}

// JSON asks for a path, and reads its answer of at most so many bytes into what into points to.
func (c *Client) JSON(ctx context.Context, path string, query url.Values, most int64, into any) error {
	body, err := c.Get(ctx, path, query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read only
	if err := json.NewDecoder(io.LimitReader(body, most)).Decode(into); err != nil {
		return fmt.Errorf("the answer to GET %s: %w", path, err)
	}
	return nil
}

// StatusError is an answer that is not the one that was asked for.
type StatusError struct {
	Path   string
	Status int
	// Text is what the engine says, at most 1,000 bytes of it.
	Text string
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("GET %s is answered with %d %s", e.Path, e.Status, e.Text)
}

// Event is what is read of an event.
type Event struct {
	// Type is container, network, and others; Action what happened, as die or health_status: healthy.
	Type, Action string
	// TimeNano is when, in nanoseconds since 1970 by the engine's clock.
	TimeNano int64 `json:"timeNano"`
	Actor    struct {
		// ID is the container's, or the network's.
		ID string
		// Attributes are the container's labels, its name and image, and what belongs to the event: signal, container.
		Attributes map[string]string
	}
}

// Words are the action's word, and what is said after it: health_status and healthy.
func (e Event) Words() (word, more string) {
	word, more, _ = strings.Cut(e.Action, ":")
	return word, strings.TrimSpace(more)
}

// Events are a stream of them.
type Events struct {
	body io.ReadCloser
	dec  *json.Decoder
}

// Events asks for those that happen from now on, or as the query says. Who takes it closes it.
func (c *Client) Events(ctx context.Context, query url.Values) (*Events, error) {
	body, err := c.Get(ctx, "/events", query)
	if err != nil {
		return nil, err
	}
	return &Events{body, json.NewDecoder(body)}, nil
}

// Next waits for the next one. An error is the stream's end.
func (s *Events) Next() (e Event, err error) {
	if err = s.dec.Decode(&e); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the engine has closed it")
		}
		err = fmt.Errorf("the stream of events ended: %w", err)
	}
	return e, err
}

// Close ends the stream.
func (s *Events) Close() error { return s.body.Close() }

// Proxy passes requests on to the engine, and events as they come. Answers are not compressed.
func (c *Client) Proxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:     c.http.Transport,
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(c.base)
			r.Out.Header.Del("Accept-Encoding")
		},
	}
}
