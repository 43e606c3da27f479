package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// answer is what came of a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// client asks the Envoy, on connections that it keeps: one for each listener, address and server name.
type client struct {
	ports map[string]string // of the listeners
	tls   *tls.Config
	conns map[string]*conn
}

type conn struct {
	net.Conn
	r *bufio.Reader
}

func newClient(ports map[string]string, roots *x509.CertPool, certificate tls.Certificate) *client {
	return &client{ports: ports, conns: map[string]*conn{}, tls: &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // the names of many connections are nobody's
	}}
}

func (c *client) close() {
	for _, x := range c.conns {
		_ = x.Close()
	}
}

// ask sends a request, a second time where the connection was closed before an answer came: Envoy closes it after some.
func (c *client) ask(ctx context.Context, r api.ExplainRequest) (answer, error) {
	key := r.Listener + "|" + r.Source + "|" + r.ServerName
	for kept := true; ; {
		x := c.conns[key]
		if x == nil {
			kept = false
			var err error
			if x, err = c.dial(ctx, r); err != nil {
				return answer{}, err
			}
			c.conns[key] = x
		}
		a, closes, err := x.ask(r)
		if err != nil || closes {
			_ = x.Close()
			delete(c.conns, key)
		}
		if err == nil || !kept {
			return a, err
		}
	}
}

func (c *client) dial(ctx context.Context, r api.ExplainRequest) (*conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(r.Source)}, Timeout: 10 * time.Second}
	raw, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", c.ports[r.Listener]))
	if err != nil {
		return nil, err
	}
	if r.Listener == "https" {
		cfg := c.tls.Clone()
		cfg.ServerName = r.ServerName
		secured := tls.Client(raw, cfg)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("handshake for %s: %w", r.ServerName, err)
		}
		raw = secured
	}
	return &conn{raw, bufio.NewReader(raw)}, nil
}

func (x *conn) ask(r api.ExplainRequest) (a answer, closes bool, err error) {
	if err := x.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return a, true, err
	}
	if _, err := io.WriteString(x, text(r)); err != nil {
		return a, true, err
	}
	resp, err := http.ReadResponse(x.r, &http.Request{Method: r.Method})
	if err != nil {
		return a, true, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, string(body)}, resp.Close, err
}

// backend is a service that says how a request has come to it. It reads no more of HTTP than it must, so that what
// Envoy sends comes as it is.
func backend(ctx context.Context, name string) (port int, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go serve(c, name)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func serve(c net.Conn, name string) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for {
		first, err := r.ReadString('\n')
		if err != nil {
			return
		}
		host, length := "", 0
		chunked := false
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimRight(line, "\r\n")
			if line == "" {
				break
			}
			key, value, _ := strings.Cut(line, ":")
			switch value = strings.TrimSpace(value); strings.ToLower(key) {
			case "host":
				host = value
			case "content-length":
				length, _ = strconv.Atoi(value)
			case "transfer-encoding":
				chunked = true
			}
		}
		if _, err := r.Discard(length); err != nil {
			return
		}
		for chunked { // no request has a body: one empty chunk, and a blank line
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			chunked = strings.TrimSpace(line) != ""
		}
		_, rest, _ := strings.Cut(strings.TrimRight(first, "\r\n"), " ")
		path := strings.TrimSuffix(rest, " HTTP/1.1")
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Backend: %s\r\nX-Path: %s\r\nX-Host: %s\r\nContent-Length: 0\r\n\r\n",
			name, path, host); err != nil {
			return
		}
	}
}
