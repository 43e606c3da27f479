package envoy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/wasm/host"
)

// Client asks one Envoy over one connection, as long as that is left open. It sends what it is given, byte for byte.
type Client struct {
	Proxy *Proxy

	conn net.Conn
	r    *bufio.Reader
}

// Ask gives the status of the answer.
func (cl *Client) Ask(ctx context.Context, target string, headers host.Headers) (int, error) {
	kept := cl.conn != nil
	if !kept {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(cl.Proxy.URL, "http://"))
		if err != nil {
			return 0, err
		}
		cl.conn, cl.r = conn, bufio.NewReader(conn)
	}
	var b strings.Builder
	b.WriteString("GET " + target + " HTTP/1.1\r\nhost: x\r\n")
	for _, kv := range headers {
		b.WriteString(kv[0] + ": " + kv[1] + "\r\n")
	}
	b.WriteString("\r\n")
	_ = cl.conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := io.WriteString(cl.conn, b.String())
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(cl.r, nil)
	}
	if err != nil {
		_ = cl.conn.Close()
		cl.conn = nil
		if kept { // Envoy closes a connection after some requests that it refused
			return cl.Ask(ctx, target, headers)
		}
		return 0, fmt.Errorf("ask Envoy: %w", err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.Close {
		_ = cl.conn.Close()
		cl.conn = nil
	}
	return resp.StatusCode, err
}
