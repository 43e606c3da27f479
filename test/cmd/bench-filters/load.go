package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// answer is what the backend says to everything.
const answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n"

// backend answers as fast as a program can that still waits for a whole request. It reads no bodies.
func backend(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	buf := make([]byte, 0, 16384)
	for {
		n, err := c.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
		if !bytes.HasSuffix(buf, []byte("\r\n\r\n")) {
			continue
		}
		buf = buf[:0]
		if _, err := c.Write([]byte(answer)); err != nil {
			return
		}
	}
}

// load is a set of connections to one Envoy.
type load struct {
	address string
	conns   []net.Conn
	readers []*bufio.Reader
}

const connections = 32

func newLoad(ctx context.Context, address string) (*load, error) {
	l := &load{address: address}
	for range connections {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		l.conns, l.readers = append(l.conns, c), append(l.readers, bufio.NewReaderSize(c, 2048))
	}
	return l, nil
}

// run sends the requests in turn, on all connections, until the time is over, and counts the answers.
func (l *load) run(requests [][]byte, d time.Duration) (int64, error) {
	end := time.Now().Add(d)
	var sent, next atomic.Int64
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for i, c := range l.conns {
		wg.Go(func() {
			for time.Now().Before(end) {
				if _, errs[i] = c.Write(requests[int(next.Add(1))%len(requests)]); errs[i] != nil {
					return
				}
				if errs[i] = okay(l.readers[i]); errs[i] != nil {
					return
				}
				sent.Add(1)
			}
		})
	}
	wg.Wait()
	return sent.Load(), errors.Join(errs...)
}

// okay reads one answer of the backend, through Envoy.
func okay(r *bufio.Reader) error {
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
			return fmt.Errorf("the answer is %q", line)
		}
		if len(line) == 2 {
			_, err := r.Discard(3)
			return err
		}
	}
}
