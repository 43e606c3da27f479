// Package docker finds containers by their labels. It asks a Docker engine for two things, over HTTP: the list of
// containers and the stream of events. The engine's own client would bring some eighty packages for these.
//
// What is known of a container is always a whole list's, read when the connection is new, after each event, and every
// half minute in case an event was lost. One thing no list tells: that a container was sent the signal to end. It
// drains from then on, some seconds before it is gone.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// Options are the engine, and how its containers are reached.
type Options struct {
	// Host is unix:///var/run/docker.sock or tcp://host:port, with what only reads between (see [Filter]).
	Host string
	// Address is the one by which Envoys reach the ports that this engine publishes; "" where they are in the containers'
	// networks.
	Address string
	// Relist is how often everything is read again, 30 s where 0; Patience how long the engine may take for an answer, 10
	// s; Ping how often it is asked whether it still answers at all, 5 s, which is also what it may take for that.
	Relist, Patience, Ping time.Duration
	Log                    *zap.Logger
}

// Docker is a [source.Source].
type Docker struct {
	opt  Options
	base string
	http *http.Client

	mu sync.Mutex
	// killed are the containers that were told to end, and until when they drain if they are still there.
	killed map[string]time.Time
	// stops are how containers are stopped, of those that are known.
	stops map[string]stop
	// learning is held while the engine is asked for these.
	learning sync.Mutex
}

var _ source.Source = (*Docker)(nil)

// New makes one; nobody is asked yet.
func New(opt Options) (*Docker, error) {
	if opt.Relist == 0 {
		opt.Relist = 30 * time.Second
	}
	if opt.Patience == 0 {
		opt.Patience = 10 * time.Second
	}
	if opt.Ping == 0 {
		opt.Ping = 5 * time.Second
	}
	d := &Docker{opt: opt, killed: map[string]time.Time{}, stops: map[string]stop{}}
	var err error
	d.base, d.http, err = dial(opt.Host, opt.Patience)
	return d, err
}

// dial is how to speak to an engine. A socket is found by its path each time: a restart replaces it.
func dial(host string, patience time.Duration) (base string, c *http.Client, err error) {
	u, err := url.Parse(host)
	if err != nil {
		return "", nil, fmt.Errorf("%q is no address of a Docker engine such as unix:///var/run/docker.sock: %w", host, err)
	}
	dialer := &net.Dialer{Timeout: patience}
	t := &http.Transport{
		ResponseHeaderTimeout: patience, MaxIdleConns: 4, IdleConnTimeout: time.Minute,
		DisableCompression: true,
	}
	switch {
	case u.Scheme == "unix" && u.Path != "":
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		}
		return "http://docker", &http.Client{Transport: t}, nil
	case (u.Scheme == "tcp" || u.Scheme == "http") && u.Host != "":
		t.DialContext = dialer.DialContext
		return "http://" + u.Host, &http.Client{Transport: t}, nil
	}
	return "", nil, fmt.Errorf("%q is no address of a Docker engine such as unix:///var/run/docker.sock or "+
		"tcp://host:2375", host)
}

// Name implements [source.Source].
func (d *Docker) Name() string { return "docker" }

// Run implements [source.Source].
func (d *Docker) Run(ctx context.Context, found func([]source.Workload), health func(error)) error {
	source.Retry(ctx, 2*time.Second, func(ctx context.Context) error {
		return d.follow(ctx, found, health)
	}, func(err error) {
		health(err)
		d.opt.Log.Warn("the Docker engine cannot be followed; what it had is kept", zap.String("docker", d.opt.Host),
			zap.Error(err))
	})
	return nil
}

// follow reads the list, and again after each event, until something fails.
func (d *Docker) follow(ctx context.Context, found func([]source.Workload), health func(error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The events come first, so that none falls between them and the list.
	stream, err := d.get(ctx, "/events", url.Values{"filters": {`{"type":["container","network"]}`}})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	changed, ended := make(chan struct{}, 1), make(chan error, 2)
	go func() { ended <- d.events(stream, changed) }()
	go func() { ended <- d.ping(ctx) }()
	var last []Container
	list := func() error {
		all, err := d.list(ctx)
		if err != nil {
			return err
		}
		last = all
		health(nil)
		found(d.workloads(all, time.Now()))
		go d.learn(ctx, all)
		return nil
	}
	if err := list(); err != nil {
		return err
	}
	relist := time.NewTicker(d.opt.Relist)
	defer relist.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case <-relist.C:
		case <-changed:
			found(d.workloads(last, time.Now())) // who drains now is known without a list
		}
		if err := list(); err != nil {
			return err
		}
	}
}

// ping asks the engine whether it answers, again and again, until it does not: one that hangs sends no event, as one
// does to which nothing happens. It returns nil when the context ends.
func (d *Docker) ping(ctx context.Context) error {
	tick := time.NewTicker(d.opt.Ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		once, cancel := context.WithTimeout(ctx, d.opt.Ping)
		body, err := d.get(once, "/_ping", nil)
		if err == nil {
			_ = body.Close() // the head says it
		}
		cancel()
		if err != nil {
			return fmt.Errorf("the engine does not answer: %w", err)
		}
	}
}

// get asks for something; who takes it closes it. The answer's head has to come in time.
func (d *Docker) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // the status says enough
	return nil, &statusError{path, resp.StatusCode, strings.TrimSpace(string(raw))}
}

// statusError is an answer that is not the one that was asked for.
type statusError struct {
	path   string
	status int
	text   string
}

// Error implements error.
func (e *statusError) Error() string {
	return fmt.Sprintf("GET %s is answered with %d %s", e.path, e.status, e.text)
}

// maxList is how large a list of containers may be.
const maxList = 256 << 20

// list reads all containers, those that have ended as well: their routes stay.
func (d *Docker) list(ctx context.Context) ([]Container, error) {
	ctx, cancel := context.WithTimeout(ctx, d.opt.Patience)
	defer cancel()
	body, err := d.get(ctx, "/containers/json", url.Values{"all": {"1"}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	var out []Container
	if err := json.NewDecoder(io.LimitReader(body, maxList)).Decode(&out); err != nil {
		return nil, fmt.Errorf("the list of containers: %w", err)
	}
	return out, nil
}

// event is what is read of one.
type event struct {
	Type, Action string
	Actor        struct {
		ID         string
		Attributes map[string]string
	}
}

// events reads the stream until it ends, and says when there may be something else.
func (d *Docker) events(stream io.Reader, changed chan<- struct{}) error {
	dec := json.NewDecoder(stream)
	for {
		var e event
		if err := dec.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the engine has closed it")
			}
			return fmt.Errorf("the stream of events ended: %w", err)
		}
		action, _, _ := strings.Cut(e.Action, ":") // exec_start: sh, health_status: healthy
		switch {
		case e.Type == "container" && action == "kill":
			d.mu.Lock()
			if how := d.stops[e.Actor.ID]; how.ends(e.Actor.Attributes["signal"]) {
				d.killed[e.Actor.ID] = how.until(time.Now())
			}
			d.mu.Unlock()
		case e.Type == "container" && action == "start":
			d.mu.Lock()
			delete(d.killed, e.Actor.ID)
			d.mu.Unlock()
		case e.Type == "container" && strings.HasPrefix(action, "exec_"), action == "top", action == "attach",
			action == "resize":
			continue // health checks are an exec each
		}
		select {
		case changed <- struct{}{}:
		default: // one is waiting already
		}
	}
}
