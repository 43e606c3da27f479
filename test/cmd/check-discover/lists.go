package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// slowLists has services change while the engine takes long for a list of its containers, as one on a busy machine
// does. Between it and the program under test is a proxy that holds its answer until all changes are at Envoy.
func (t *trial) slowLists(ctx context.Context) error {
	fmt.Printf("a list of containers takes %s or longer\n", t.list)
	if err := t.settle(ctx); err != nil {
		return err
	}
	var holds atomic.Bool
	asked, release := make(chan struct{}, 1), make(chan struct{})
	proxy := t.engine.Proxy()
	proxy.ModifyResponse = func(r *http.Response) error { // the engine has answered: its list is of now
		if strings.HasSuffix(r.Request.URL.Path, "/containers/json") && holds.Load() {
			select {
			case asked <- struct{}{}:
			default:
			}
			select {
			case <-release:
			case <-r.Request.Context().Done():
			}
		}
		return nil
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: proxy}
	socket := filepath.Join(t.dir, "slow.sock")
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(lis) }()
	defer func() { _ = server.Close() }()
	if err := t.again(ctx, "unix://"+socket); err != nil {
		return err
	}
	holds.Store(true)
	select {
	case <-asked:
	case <-time.After(time.Minute):
		return errors.New("no list of containers was asked for in a minute")
	}
	began, before := time.Now(), t.count()
	for first := true; first || time.Since(began) < t.list; first = false {
		for _, change := range []func() error{
			func() error {
				return t.compose(ctx, "up", "--detach", "--no-recreate", "--scale", service(1)+"=4", service(1))
			},
			func() error { return t.one(ctx, service(1), "restart") },
			func() error { return t.one(ctx, service(1), "kill") },
			func() error { return t.sick(ctx, service(0)) },
			func() error {
				return t.compose(ctx, "up", "--detach", "--no-recreate", "--scale", service(1)+"=2", service(1))
			},
		} {
			if err := change(); err != nil {
				return err
			}
		}
	}
	if err := t.settle(ctx); err != nil {
		return fmt.Errorf("while a list takes long: %w", err)
	}
	fmt.Printf("%d states in %s during one list\n", t.count()-before, time.Since(began).Round(100*time.Millisecond))
	was, err := t.atEnvoy(ctx)
	if err != nil {
		return err
	}
	holds.Store(false)
	close(release)
	// The list is of before all of that, and must take nothing back.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		is, err := t.atEnvoy(ctx)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(is, was) {
			return fmt.Errorf("after a list that took %s Envoy has %v; it had %v", time.Since(began), is, was)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return t.again(ctx, t.host)
}

func (t *trial) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.states
}

// again starts the program under test again, at an engine, and waits until it has read everything.
func (t *trial) again(ctx context.Context, host string) error {
	t.end()
	if err := t.discoverAt(ctx, host); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ready := strings.TrimSuffix(t.state, "/v1/state") + "/readyz"
	if err := harness.Await(limit, func() bool {
		status, _, err := t.s.Call(limit, http.MethodGet, ready, nil)
		return err == nil && status == http.StatusOK
	}); err != nil {
		return fmt.Errorf("discovery, started again at %s, is not ready: %w", host, err)
	}
	return nil
}
