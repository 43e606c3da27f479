package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

const lastingHost = "lasting.example.com"

// lasting are connections that are open for as long as the check runs.
type lasting struct {
	plain, secure string // host:port
	roots         *x509.CertPool

	websockets, downloads, answers counter
	// replaced are HTTP/2 connections that Envoy asked to end; another one took their place.
	replaced atomic.Int64
}

// counter counts what went on and what was cut or failed.
type counter struct {
	good, bad atomic.Int64
	mu        sync.Mutex
	examples  []string
}

func (c *counter) fail(format string, args ...any) {
	c.bad.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.examples) < 5 {
		c.examples = append(c.examples, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// backend answers at once, streams without end on /download, and echoes on /websocket (RFC 6455; the frames go back
// as they came).
func backend(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/websocket":
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return // the client is told by the connection's end
		}
		defer func() { _ = conn.Close() }() // its end is the client's to tell
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(conn, rw)
	case "/download":
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := w.Write(make([]byte, 512)); err != nil {
				return // the client has gone
			}
			_ = http.NewResponseController(w).Flush() // the next write tells
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	default:
		_, _ = io.WriteString(w, "ok") // the client counts what it gets
	}
}

func (l *lasting) tls() *tls.Config {
	return &tls.Config{RootCAs: l.roots, ServerName: lastingHost, MinVersion: tls.VersionTLS12}
}

// dial connects to one of the two listeners, in turn.
func (l *lasting) dial(ctx context.Context, n int) (net.Conn, error) {
	if n%2 == 0 {
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.plain)
	}
	return (&tls.Dialer{Config: l.tls()}).DialContext(ctx, "tcp", l.secure)
}

// open makes the connections, and returns when each has had its first answer; they go on until the context ends.
func (l *lasting) open(ctx context.Context, wg *sync.WaitGroup, websockets, http2, downloads int) error {
	began := make(chan error, websockets+http2+downloads)
	start := func(n int, f func(ctx context.Context, i int, began func(error))) {
		for i := range n {
			wg.Go(func() {
				var once sync.Once
				f(ctx, i, func(err error) { once.Do(func() { began <- err }) })
			})
		}
	}
	start(websockets, l.websocket)
	start(http2, l.stream)
	start(downloads, l.download)
	var all error
	for range cap(began) {
		all = errors.Join(all, <-began)
	}
	return all
}

// ask writes a request by hand and returns the connection, past the head of its answer.
func (l *lasting) ask(
	ctx context.Context, n int, path, headers string,
) (net.Conn, *bufio.Reader, *http.Response, error) {
	conn, err := l.dial(ctx, n)
	if err != nil {
		return nil, nil, nil, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, lastingHost, headers); err != nil {
		return conn, nil, nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	return conn, r, resp, err
}

// websocket sends a frame twice a second and waits for its echo.
func (l *lasting) websocket(ctx context.Context, n int, began func(error)) {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	//nolint:bodyclose // it ends with the connection
	conn, r, resp, err := l.ask(ctx, n, "/websocket", "Upgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+base64.StdEncoding.EncodeToString(key)+"\r\n")
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(resp.Status)
	}
	began(err)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }() // the check is over
	frame := []byte{0x81, 0x84, 1, 2, 3, 4, 'p' ^ 1, 'i' ^ 2, 'n' ^ 3, 'g' ^ 4}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for echo := make([]byte, len(frame)); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := conn.SetDeadline(time.Now().Add(20 * time.Second))
		if err == nil {
			_, err = conn.Write(frame)
		}
		if err == nil {
			_, err = io.ReadFull(r, echo)
		}
		if err != nil {
			l.websockets.fail("WebSocket %d: %v", n, err)
			return
		}
		l.websockets.good.Add(1)
	}
}

// download reads what comes, slowly, until the end.
func (l *lasting) download(ctx context.Context, n int, began func(error)) {
	conn, _, resp, err := l.ask(ctx, n, "/download", "") //nolint:bodyclose // it ends with the connection
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	began(err)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }() // the check is over
	for piece := make([]byte, 512); ; {
		err := conn.SetDeadline(time.Now().Add(20 * time.Second))
		if err == nil {
			_, err = io.ReadFull(resp.Body, piece)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.downloads.fail("download %d: %v", n, err)
			return
		}
		l.downloads.good.Add(1)
	}
}

// stream asks five times a second on one HTTP/2 connection.
func (l *lasting) stream(ctx context.Context, n int, began func(error)) {
	t := &http.Transport{TLSClientConfig: l.tls(), ForceAttemptHTTP2: true, MaxConnsPerHost: 1}
	defer t.CloseIdleConnections()
	c := &http.Client{Transport: t, Timeout: 20 * time.Second}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for first := true; ; first = false {
		reused := false
		traced := httptrace.WithClientTrace(ctx,
			&httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
		status, proto, err := get(traced, c, "https://"+l.secure+"/", lastingHost)
		if ctx.Err() != nil {
			began(ctx.Err())
			return
		}
		switch {
		case err != nil || status != http.StatusOK || proto != 2:
			l.answers.fail("HTTP/2 connection %d: %d, HTTP/%d, %v", n, status, proto, err)
		default:
			l.answers.good.Add(1)
		}
		if !reused && !first {
			l.replaced.Add(1)
		}
		began(err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func get(ctx context.Context, c *http.Client, url, host string) (status, proto int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, err
	}
	req.Host = host
	resp, err := c.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.ProtoMajor, err
}
