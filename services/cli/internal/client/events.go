package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Event is one server-sent event.
type Event struct {
	// Type is revision or status; ID is the revision, "" for status.
	Type, ID string
	Data     []byte
}

// maxEvent bounds one event, in bytes; a revision's commit lists what it changed.
const maxEvent = 64 << 20

// Events follows the api's events until the context ends or take fails. After a break it comes back with
// the last id, so that no revision is missed. from is a revision to begin after, "" for now.
func (c *Client) Events(ctx context.Context, from string, take func(Event) error) error {
	return c.stream(ctx, "/v1/events", from, take, func(err error, last string) string {
		return fmt.Sprintf("the events broke off (%v); coming back with revision %q", err, last)
	})
}

// AccessLog follows the requests that Envoys answer, as the query asks for them, until the context ends or take fails. After
// a break it comes back; what was answered meanwhile is not told.
func (c *Client) AccessLog(ctx context.Context, query url.Values, take func(Event) error) error {
	path := "/v1/access-log"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.stream(ctx, path, "", take, func(err error, _ string) string {
		return fmt.Sprintf("the access log broke off (%v); coming back, without what is answered meanwhile", err)
	})
}

func (c *Client) stream(
	ctx context.Context, path, from string, take func(Event) error, broken func(err error, last string) string,
) error {
	for pause := time.Second; ; {
		began := time.Now()
		last, err := c.follow(ctx, path, from, take)
		from = last
		var p *Problem
		var stop *stopError
		var foreign *foreignError
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end that was asked for
		case errors.As(err, &stop):
			return stop.err
		case errors.As(err, &foreign):
			return foreign
		case errors.As(err, &p) && p.Status < 500:
			return err
		}
		if time.Since(began) > 10*time.Second {
			pause = time.Second
		}
		if c.Notify != nil {
			c.Notify(broken(err, from))
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 15*time.Second)
		case <-ctx.Done():
			return nil
		}
	}
}

type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

func (c *Client) follow(ctx context.Context, path, last string, take func(Event) error) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.URL, "/")+path, nil)
	if err != nil {
		return last, &stopError{err}
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return last, c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return last, c.refused(resp)
	}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return last, &foreignError{c.URL, "its answer is no text/event-stream"}
	}
	return readEvents(resp.Body, last, take)
}

// readEvents reads the format of server-sent events, as far as the api uses it.
func readEvents(r io.Reader, last string, take func(Event) error) (string, error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxEvent)
	var e Event
	for s.Scan() {
		field, value, _ := bytes.Cut(s.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			e.Type = string(value)
		case "id":
			e.ID = string(value)
		case "data":
			if e.Data != nil {
				e.Data = append(e.Data, '\n')
			}
			e.Data = append(e.Data, value...)
		case "":
			if len(s.Bytes()) > 0 || e.Data == nil { // a comment, or nothing said
				continue
			}
			if err := take(e); err != nil {
				return last, &stopError{err}
			}
			if e.ID != "" {
				last = e.ID
			}
			e = Event{}
		}
	}
	if err := s.Err(); err != nil {
		return last, err
	}
	return last, io.EOF
}
