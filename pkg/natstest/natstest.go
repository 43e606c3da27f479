// Package natstest runs the real nats-server, with JetStream on disk, inside a test of any module.
package natstest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	_ "github.com/marchproxy/marchproxy/pkg/hermetic" // what the user has set is for other programs
	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// ready is how long a server may take to start.
const ready = 20 * time.Second

// Server is a nats-server that can be stopped, and started again on the same port with whatever its
// directory holds then.
type Server struct {
	t    testing.TB
	dir  string
	port int
	run  *server.Server
	// conns are those that Connect has made.
	conns []*nats.Conn
}

// Start starts a server on a free port of the loopback; the test's end stops it.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartIn(t, t.TempDir())
}

// StartIn is [Start] in a directory that the test has chosen.
func StartIn(t testing.TB, dir string) *Server {
	t.Helper()
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: filepath.Join(dir, "nats"), port: ports[0]}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start starts the server after a [Server.Stop].
func (s *Server) Start() {
	s.t.Helper()
	run, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: s.port, JetStream: true, StoreDir: s.dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	run.Start()
	if !run.ReadyForConnections(ready) {
		s.t.Fatal("nats-server does not start")
	}
	s.run = run
}

// Stop stops the server and waits until its files are closed and the connections of [Server.Connect] have
// noticed.
func (s *Server) Stop() {
	gone := make([]<-chan nats.Status, 0, len(s.conns))
	for _, nc := range s.conns {
		if nc.IsConnected() {
			gone = append(gone, nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED))
		}
	}
	s.run.Shutdown()
	s.run.WaitForShutdown()
	for _, c := range gone { // what is written to a connection that has not noticed is lost
		<-c
	}
}

// Backup copies the directory of a stopped server, for [Server.Restore].
func (s *Server) Backup() string {
	s.t.Helper()
	to := filepath.Join(s.t.TempDir(), "backup")
	if err := os.CopyFS(to, os.DirFS(s.dir)); err != nil {
		s.t.Fatal(err)
	}
	return to
}

// Restore replaces the directory of a stopped server by a backup.
func (s *Server) Restore(from string) {
	s.t.Helper()
	if err := errors.Join(os.RemoveAll(s.dir), os.CopyFS(s.dir, os.DirFS(from))); err != nil {
		s.t.Fatal(err)
	}
}

// URL is where it serves.
func (s *Server) URL() string { return s.run.ClientURL() }

// Connect returns a connection that comes back whenever the server does.
func (s *Server) Connect() (*nats.Conn, jetstream.JetStream) {
	s.t.Helper()
	nc, err := nats.Connect(s.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.ReconnectJitter(0, 0))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	s.conns = append(s.conns, nc)
	js, err := jetstream.New(nc)
	if err != nil {
		s.t.Fatal(err)
	}
	return nc, js
}
