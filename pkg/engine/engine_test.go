package engine_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/engine"
)

// serve answers at a socket until it is closed.
func serve(t *testing.T, socket string, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = lis
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// TestNew: what is no address of an engine is said to be none.
func TestNew(t *testing.T) {
	for host, good := range map[string]bool{
		"unix:///var/run/docker.sock": true, "tcp://127.0.0.1:2375": true, "http://engine:2375": true,
		"": false, "/var/run/docker.sock": false, "unix://": false, "ssh://host": false, "tcp://": false, "tcp://a b": false,
	} {
		if _, err := engine.New(host, time.Second); (err == nil) != good || err != nil &&
			!strings.Contains(err.Error(), "unix:///var/run/docker.sock") {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// TestSocketIsReplaced: an engine that was restarted is found by the socket's path.
func TestSocketIsReplaced(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	c, err := engine.New("unix://"+socket, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		s := serve(t, socket, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"N":%d,"Q":%q}`, i, r.URL.RawQuery)
		})
		var got struct {
			N int
			Q string
		}
		if err := c.JSON(t.Context(), "/info", url.Values{"all": {"1"}}, 100, &got); err != nil || got.N != i || got.Q != "all=1" {
			t.Fatalf("engine %d says %+v, %v", i, got, err)
		}
		s.Close()
	}
	if _, err := c.Get(t.Context(), "/info", nil); err == nil {
		t.Error("an engine that is away answers")
	}
}

// TestAnswers: a status is an error that has it; an answer that is too long, or whose head does not come, is none.
func TestAnswers(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	serve(t, socket, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			_, _ = io.WriteString(w, `"`+strings.Repeat("x", 1000)+`"`)
		case "/late":
			<-r.Context().Done()
		default:
			http.Error(w, "no such thing", http.StatusNotFound)
		}
	})
	c, err := engine.New("unix://"+socket, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	var status *engine.StatusError
	err = c.JSON(t.Context(), "/nothing", nil, 100, &text)
	if !errors.As(err, &status) || status.Status != 404 || err.Error() != "GET /nothing is answered with 404 no such thing" {
		t.Error(err)
	}
	for _, path := range []string{"/long", "/late"} {
		if err := c.JSON(t.Context(), path, nil, 100, &text); err == nil || errors.As(err, &status) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestEvents: they come one by one, through a proxy as well, until the stream ends, which is an error.
func TestEvents(t *testing.T) {
	dir := t.TempDir()
	next := make(chan string)
	serve(t, filepath.Join(dir, "s"), func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("a compressed answer is asked for: %v", r.Header)
		}
		for e := range next {
			_, _ = io.WriteString(w, e)
			_ = http.NewResponseController(w).Flush()
		}
	})
	direct, err := engine.New("unix://"+filepath.Join(dir, "s"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, filepath.Join(dir, "proxy"), direct.Proxy().ServeHTTP)
	c, err := engine.New("unix://"+filepath.Join(dir, "proxy"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		next <- `{"Type":"container","Action":"start","timeNano":7,"Actor":{"ID":"x","Attributes":{"a":"b"}}}`
	}()
	events, err := c.Events(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = events.Close() }()
	e, err := events.Next()
	if err != nil || e.Type != "container" || e.TimeNano != 7 || e.Actor.ID != "x" || e.Actor.Attributes["a"] != "b" {
		t.Fatalf("%+v %v", e, err)
	}
	next <- `{"Action":"health_status: healthy"}`
	if e, err = events.Next(); err != nil {
		t.Fatal(err)
	}
	if word, more := e.Words(); word != "health_status" || more != "healthy" {
		t.Errorf("%q %q", word, more)
	}
	close(next)
	if e, err = events.Next(); err == nil || !strings.Contains(err.Error(), "the engine has closed it") {
		t.Errorf("%+v %v", e, err)
	}
}
