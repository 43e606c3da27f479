package process_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// TestServeHTTP: a server that is stopped answers what it was asked before, and then it has ended: a connection without
// a request does not hold it up, an answer without end is told, and a request that takes too long is cut off.
func TestServeHTTP(t *testing.T) {
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-leave
		fmt.Fprint(w, strings.Repeat("x", 1<<20), "whole\n")
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-process.Stopping(r.Context())
		fmt.Fprint(w, "bye\n")
	})
	mux.HandleFunc("/deaf", func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	for name, c := range map[string]struct {
		path, last string
		grace      time.Duration
	}{
		"slow":    {"/slow", "whole", time.Minute},
		"endless": {"/endless", "bye", time.Minute},
		"deaf":    {"/deaf", "", 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			lis, err := process.Listen(t.Context(), "127.0.0.1:0", "A_ADDR")
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- process.ServeHTTP(ctx, lis, mux, time.Minute, c.grace) }()
			addr := lis.Addr().String()
			silent, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = silent.Close() }()
			last := make(chan string, 1)
			go func() {
				line := ""
				if resp, err := http.Get("http://" + addr + c.path); err == nil {
					in := bufio.NewScanner(resp.Body)
					in.Buffer(nil, 2<<20)
					for in.Scan() {
						line = in.Text()
					}
					_ = resp.Body.Close()
				}
				last <- line
			}()
			<-entered
			stop()
			if c.path == "/slow" {
				for limit := time.Now().Add(10 * time.Second); ; {
					conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", addr)
					if err != nil {
						break
					}
					_ = conn.Close()
					if time.Now().After(limit) {
						t.Fatal("a server that is being stopped takes connections still")
					}
				}
				select {
				case err := <-ended:
					t.Fatal("it has ended before it has answered: ", err)
				default:
				}
				close(leave)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it does not end")
			}
			if line := <-last; !strings.HasSuffix(line, c.last) || c.last == "" && line != "" {
				t.Errorf("the answer ends with %q, not %q", line[max(0, len(line)-10):], c.last)
			}
		})
	}
}
