package process

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// ServeHTTP serves until the context ends, and returns when nothing is served any more: requests in flight have a grace
// to end, and what is still open after it is cut off. A request's headers are 64 KiB at most and come within ten
// seconds, and read is for the whole request.
func ServeHTTP(ctx context.Context, lis net.Listener, h http.Handler, read, grace time.Duration) error {
	busy := &inFlight{conns: map[net.Conn]bool{}}
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: read, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: log.New(unlessHandshake{os.Stderr}, "", log.LstdFlags),
		ConnState: busy.note,
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.WithoutCancel(ctx), stopping{}, ctx.Done())
		},
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	go func() { _ = s.Shutdown(limit) }() // nobody can connect any more, and idle connections are closed
	busy.await(limit)
	_ = s.Close() // what is left had its time, or is a connection without a request, which Shutdown would wait for
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type stopping struct{}

// Stopping is closed when the server is being stopped that has a request's context: an answer that has no end of its
// own ends then, and does not wait to be cut off. It is nil where [ServeHTTP] does not serve.
func Stopping(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(stopping{}).(<-chan struct{})
	return c
}

// inFlight are the connections that have a request which is not answered in full.
type inFlight struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (f *inFlight) note(c net.Conn, s http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s == http.StateActive {
		f.conns[c] = true
	} else {
		delete(f.conns, c)
	}
}

// await waits until there are none, or the context ends.
func (f *inFlight) await(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		f.mu.Lock()
		n := len(f.conns)
		f.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// unlessHandshake leaves out handshakes that failed, of which any client can make as many as it likes: they would fill
// the log.
type unlessHandshake struct{ io.Writer }

// Write implements [io.Writer].
func (u unlessHandshake) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("TLS handshake error")) {
		return len(p), nil
	}
	return u.Writer.Write(p)
}
