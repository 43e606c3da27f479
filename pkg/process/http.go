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
	"time"
)

// HTTPServer is a server with the limits of all of ours: a request's headers are 64 KiB at most and come within ten
// seconds, and read is for the whole request.
func HTTPServer(h http.Handler, read time.Duration) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: read, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: log.New(unlessHandshake{os.Stderr}, "", log.LstdFlags),
	}
}

// ServeHTTP serves by [HTTPServer] until the context ends; what is still open is cut off after the grace.
func ServeHTTP(ctx context.Context, lis net.Listener, h http.Handler, read, grace time.Duration) error {
	s := HTTPServer(h, read)
	go func() {
		<-ctx.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		_ = s.Shutdown(limit) // what is still open after that is cut off
	}()
	if err := s.Serve(lis); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// unlessHandshake leaves out handshakes that failed, of which whoever connects can make as many as he likes.
type unlessHandshake struct{ io.Writer }

// Write implements [io.Writer].
func (u unlessHandshake) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("TLS handshake error")) {
		return len(p), nil
	}
	return u.Writer.Write(p)
}
