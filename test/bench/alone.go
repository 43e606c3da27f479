package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/floor"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// Alone is an Envoy with the floor's server, which holds the same routes as the system.
type Alone struct {
	routes  *Routes
	server  *floor.Server
	envoy   *floor.Envoy
	builder *translate.Builder
	state   *config.State
	probe   *probe.Conn
}

// NewAlone starts it with the first n routes.
func NewAlone(ctx context.Context, routes *Routes, n int) (f *Alone, err error) {
	ports, err := porttest.Take(2)
	if err != nil {
		return nil, err
	}
	f = &Alone{routes: routes, state: config.New(), builder: translate.NewBuilder(resource.DefaultGateway,
		translate.Options{})}
	gw, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway},
		&configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: uint32(ports[0])}}})
	if err != nil {
		return nil, err
	}
	all, err := routes.Objects(0, n)
	if err != nil {
		return nil, err
	}
	f.state.Apply(append(all, gw))
	f.builder.Rebuild(f.state)
	if f.server, err = floor.NewServer(slices.Collect(f.builder.All())); err != nil {
		return nil, err
	}
	f.probe = probe.New(net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])))
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	path, err := harness.EnvoyPath()
	if err != nil {
		return nil, err
	}
	if f.envoy, err = floor.StartEnvoy(ctx, path, f.server.Addr(), net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1])),
		1); err != nil {
		return nil, err
	}
	for t0 := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if a, _, err := f.probe.Get(Host(n-1), "/"); err == nil && a.Status == 200 {
			return f, nil
		}
		if time.Since(t0) > 3*time.Minute {
			return nil, errors.New("the floor's Envoy does not serve")
		}
	}
}

// Change sends one host's scope, marshalled beforehand, and asks until it is seen. It returns how many milliseconds
// that took.
func (f *Alone) Change(i int, mark string) (float64, error) {
	o, err := object(resource.KindRoute, Name(i), f.routes.Spec(i, mark))
	if err != nil {
		return 0, err
	}
	changes, _ := f.state.Apply([]*resource.Object{o})
	d, _ := f.builder.Update(f.state, changes, f.builder.Policies())
	if len(d.Upserts) != 1 {
		return 0, fmt.Errorf("a change of one route made %d resources", len(d.Upserts))
	}
	t0 := time.Now()
	if _, err := f.server.Push(d.Upserts[0]); err != nil {
		return 0, err
	}
	err = until(f.probe, Host(i), mark)
	return Since(t0), err
}

// Close ends it.
func (f *Alone) Close() {
	f.probe.Close()
	if f.envoy != nil {
		f.envoy.Close()
	}
	f.server.Close()
}
