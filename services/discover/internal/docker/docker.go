// Package docker finds containers by their labels. It asks a Docker engine for the stream of events, for one container
// after an event of it, and for the list of all.
//
// What is known is kept a container. An event that says all of what happened (it ended, it is healthy, it was sent the
// signal to end) counts at once, and after others that container is read again. The list is read when the connection is
// new, every half minute in case an event was lost, and where a container cannot be read; it may take its time, since
// nothing waits for it but the first. Its word does not count for a container of which there was an event meanwhile.
// Nothing is gone by what failed: only an event says so, or a whole list.
package docker

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/engine"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// Options are the engine, and how its containers are reached.
type Options struct {
	// Host is unix:///var/run/docker.sock or tcp://host:port, with what only reads between (see [Filter]).
	Host string
	// Address is the one by which Envoys reach the ports that this engine publishes; "" where they are in the containers'
	// networks.
	Address string
	// Relist is how long after a list everything is read again, 30 s where 0; Patience how long the engine may take for an
	// answer, a minute; Ping how often it is asked whether it still answers at all, 5 s, which is also what it may take for
	// that.
	Relist, Patience, Ping time.Duration
	Log                    *zap.Logger
}

// patience is how long an engine may take for an answer. On a busy machine a list of twelve containers took more than
// ten seconds; whether an engine hangs is found out by pings.
const patience = time.Minute

// Docker is a [source.Source].
type Docker struct {
	opt    Options
	engine *engine.Client
	known  *known
}

var _ source.Source = (*Docker)(nil)

// New makes one; nobody is asked yet.
func New(opt Options) (*Docker, error) {
	if opt.Relist == 0 {
		opt.Relist = 30 * time.Second
	}
	if opt.Patience == 0 {
		opt.Patience = patience
	}
	if opt.Ping == 0 {
		opt.Ping = 5 * time.Second
	}
	c, err := engine.New(opt.Host, opt.Patience)
	return &Docker{opt: opt, engine: c, known: newKnown(opt.Address)}, err
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
		body, err := d.engine.Get(once, "/_ping", nil)
		if err == nil {
			_ = body.Close() // the head says it
		}
		cancel()
		if err != nil {
			return fmt.Errorf("the engine does not answer: %w", err)
		}
	}
}

// events hands over what happens until the stream ends; opened is closed when nothing is missed any more.
func (d *Docker) events(ctx context.Context, opened chan<- struct{}, happened chan<- engine.Event) error {
	stream, err := d.engine.Events(ctx, url.Values{"filters": {`{"type":["container","network"]}`}})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	close(opened)
	for {
		e, err := stream.Next()
		if err != nil {
			return err
		}
		select {
		case happened <- e:
		case <-ctx.Done():
			return nil
		}
	}
}

// maxList is how large a list of containers may be.
const maxList = 256 << 20

// list reads all containers, those that have ended as well: their routes stay.
func (d *Docker) list(ctx context.Context) (out []Container, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.opt.Patience)
	defer cancel()
	err = d.engine.JSON(ctx, "/containers/json", url.Values{"all": {"1"}}, maxList, &out)
	return out, err
}
