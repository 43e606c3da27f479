package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNone says that no marchproxy dev has ever kept anything at a place.
var ErrNone = errors.New("marchproxy dev keeps nothing there")

// Database is what dev keeps in a state directory, for who reads or writes all of it.
type Database struct {
	system *system
	end    func()
}

// Environment is this process's, with what dev gives its api to do with the database.
func (d Database) Environment() []string {
	s := d.system
	out := []string{"DATABASE_URL=" + s.databaseURL(), "SECRET_KEY=" + s.secrets.SecretKey}
	if s.token != "" {
		out = append(out, "API_FIRST_TOKEN="+s.token)
	}
	return s.environ(out...)
}

// Close ends the database where it was started for this alone.
func (d Database) Close() { d.end() }

// OpenDatabase finds the database in a state directory ("" for the usual one), and starts it where no dev runs there.
func OpenDatabase(ctx context.Context, dir string, say func(string)) (Database, error) {
	if dir == "" {
		dir = stateDir()
	}
	if !isFile(filepath.Join(dir, "secrets.json")) {
		return Database{}, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	s := &system{
		Options: Options{StateDir: dir, Cache: cacheDir()}, logs: filepath.Join(dir, "log"), say: say, ownDatabase: true,
	}
	if err := s.loadSecrets(); err != nil {
		return Database{}, err
	}
	var err error
	if s.token, err = readToken(s.tokenPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Database{}, err
	}
	end := func() {}
	if locked(dir) {
		s.PGPort, err = postmasterPort(filepath.Join(dir, "postgres", "data"))
	} else {
		end, err = s.alone(ctx)
	}
	return Database{s, end}, err
}

// alone runs the embedded PostgreSQL and nothing else, on a free port where none is given, until close is called.
func (s *system) alone(ctx context.Context) (closed func(), err error) {
	lock, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	unlock := func() { _ = lock.Close() } // ends with the process anyway
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	if err := s.loadSecrets(); err != nil {
		return nil, err
	}
	if s.PGPort == 0 {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", local(0))
		if err != nil {
			return nil, err
		}
		s.PGPort = l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	if err := s.planPostgres(); err != nil {
		return nil, err
	}
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := s.children[0]
	c.start(own, s.logs, s.say, func() {})
	end := func() { stop(); <-c.done; unlock() }
	if err := c.await(ctx, s.logs, s.say); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// postmasterPort is the port of a PostgreSQL that runs, which its file has in the fourth line.
func postmasterPort(data string) (int, error) {
	raw, err := os.ReadFile(filepath.Join(data, pidFile))
	if err != nil {
		return 0, fmt.Errorf("marchproxy dev runs, and its PostgreSQL does not: %w", err)
	}
	lines := strings.Split(string(raw), "\n")
	if len(lines) < 4 {
		return 0, errors.New("marchproxy dev runs, and its PostgreSQL is only just starting: try again")
	}
	return strconv.Atoi(strings.TrimSpace(lines[3]))
}

// API is the program of the api beside this one, or on PATH.
func API() (string, error) { return sibling("marchproxy-api") }
