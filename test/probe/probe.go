// Package probe asks a proxy the same small question again and again, at the price of a system call or
// two, so that the question costs little beside what it measures.
package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Conn is one keep-alive connection. It is not safe for concurrent use.
type Conn struct {
	addr string
	conn net.Conn
	r    *bufio.Reader
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// New returns a connection that is made at the first question.
func New(addr string) *Conn { return &Conn{addr: addr} }

// Get asks for a path of a host; headers are lines. After an error the next question makes a new connection. Reused
// says whether the question went out on a connection that had answered before.
func (c *Conn) Get(host, path string, headers ...string) (a Answer, reused bool, err error) {
	reused = c.conn != nil
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.addr, 5*time.Second)
		if err != nil {
			return a, false, err
		}
		c.conn, c.r = conn, bufio.NewReaderSize(conn, 4096)
	}
	if err := c.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return a, reused, err
	}
	if _, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, host, lines(headers)); err != nil {
		c.Close()
		return a, reused, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.Close()
		return a, reused, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		c.Close()
		return a, reused, err
	}
	if resp.Close {
		c.Close()
	}
	return Answer{resp.StatusCode, resp.Header, string(body)}, reused, nil
}

func lines(headers []string) string {
	if len(headers) == 0 {
		return ""
	}
	return strings.Join(headers, "\r\n") + "\r\n"
}

// Idle says whether the connection may be used: the proxy has not closed it since the last answer. An
// ordinary client looks before it sends, too.
func (c *Conn) Idle() bool {
	if c.conn == nil {
		return true
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(50 * time.Microsecond)); err != nil {
		return false
	}
	_, err := c.r.Peek(1)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	c.Close()
	return false
}

// Close ends the connection; the next question makes another.
func (c *Conn) Close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn, c.r = nil, nil
	}
}
