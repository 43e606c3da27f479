// Package fanout is many Envoys in one process, as far as an xDS server sees them: real connections that subscribe by
// delta ADS as Envoy does and acknowledge what comes. They keep nothing of it but numbers, so that thousands cost
// less than the server that is measured.
package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// How often a client comes again before it has had an answer, and what its first pause is up to, twice as long each time:
// Envoy's, but for an end.
const (
	mostTries  = 6
	firstPause = 500 * time.Millisecond
)

// Options say what the clients are like.
type Options struct {
	// Addr of the xDS server, and the key that its gateway asks for.
	Addr, Key string
	Clients   int
	// Delay is the longest time until an answer; Slow is how many clients take between 200 ms and 1 s instead, and
	// Hung how many stop while [Fleet.Hang] says so, half of them without reading and half without answering.
	Delay      time.Duration
	Slow, Hung int
}

// Fleet is the clients.
type Fleet struct {
	opt     Options
	clients []*client
	content *content
	ctx     context.Context
	stop    context.CancelFunc
	done    sync.WaitGroup
	hang    atomic.Pointer[chan struct{}]
	watch   atomic.Pointer[Watch]
	bytes   atomic.Int64
	failed  atomic.Int64
	again   atomic.Int64
	lastErr atomic.Pointer[error]
}

// Start connects them all; they come with nothing.
func Start(ctx context.Context, opt Options) *Fleet {
	f := &Fleet{opt: opt, content: newContent()}
	f.ctx, f.stop = context.WithCancel(ctx)
	for i := range opt.Clients {
		c := &client{fleet: f, id: i, slow: i > 0 && i <= opt.Slow, hung: i > opt.Slow && i <= opt.Slow+opt.Hung}
		c.counts = map[translate.Type]int{}
		f.clients = append(f.clients, c)
	}
	f.connect()
	return f
}

// connect has every client connect. One whose connection is closed before the server has answered on it comes again as
// Envoy does: xds has fewer connections of clients that it does not know yet than there may be Envoys.
func (f *Fleet) connect() {
	for _, c := range f.clients {
		f.done.Go(func() {
			for tried := 1; f.ctx.Err() == nil; tried++ {
				err := c.serve(f.ctx)
				switch {
				case err == nil || f.ctx.Err() != nil || c.cut.Load():
					return
				case !c.hung && !c.answered && tried < mostTries:
					f.again.Add(1)
					select {
					case <-time.After(rand.N(firstPause << (tried - 1))):
					case <-f.ctx.Done():
					}
					continue
				case !c.hung:
					f.failed.Add(1)
					f.lastErr.Store(&err)
					return
				}
				// The server has given it up; it comes back when it goes on.
				if hang := f.hang.Load(); hang != nil {
					select {
					case <-*hang:
					case <-f.ctx.Done():
					}
				}
			}
		})
	}
}

// Reconnect cuts every connection at once and connects anew, with what each client has.
func (f *Fleet) Reconnect() {
	for _, c := range f.clients {
		c.hangUp()
	}
	f.done.Wait()
	for _, c := range f.clients {
		c.cut.Store(false)
	}
	f.bytes.Store(0)
	f.connect()
}

// Close ends it.
func (f *Fleet) Close() {
	f.Release()
	f.stop()
	for _, c := range f.clients {
		c.hangUp()
	}
	f.done.Wait()
}

// Bytes is what has been received since the last [Fleet.Reconnect].
func (f *Fleet) Bytes() int64 { return f.bytes.Load() }

// Again is how many connections were closed before the server had answered on them.
func (f *Fleet) Again() int64 { return f.again.Load() }

// Err is what went wrong with a client that should not have lost its connection.
func (f *Fleet) Err() error {
	if e := f.lastErr.Load(); e != nil {
		return fmt.Errorf("%d clients lost their connection: %w", f.failed.Load(), *e)
	}
	return nil
}

// Hang stops the clients that hang, until [Fleet.Release].
func (f *Fleet) Hang() {
	c := make(chan struct{})
	f.hang.Store(&c)
}

// Release lets them go on: one that did not read reads, one that has left something unanswered comes back on another
// connection.
func (f *Fleet) Release() {
	hang := f.hang.Swap(nil)
	if hang == nil {
		return
	}
	close(*hang)
	for _, c := range f.clients {
		if c.mute() {
			c.drop()
		}
	}
}

// Healthy is how many clients neither hang nor are slow.
func (f *Fleet) Healthy() int { return f.opt.Clients - f.opt.Slow - f.opt.Hung }

// Received is how many resources of a type the client has received since it was connected last.
func (f *Fleet) Received(client int, t translate.Type) int {
	c := f.clients[client]
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[t]
}

// Total is how many resources have come to all clients since they were connected last.
func (f *Fleet) Total() (n int) {
	for _, c := range f.clients {
		c.mu.Lock()
		for _, k := range c.counts {
			n += k
		}
		c.mu.Unlock()
	}
	return n
}

// Await waits until every client, or every healthy one, has all of the resources, or has said that it has.
func (f *Fleet) Await(want map[translate.Type]int, healthy bool, limit time.Duration) error {
	for t0 := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		missing := 0
		for _, c := range f.clients {
			if healthy && (c.hung || c.slow) {
				continue
			}
			if !c.hasAll(want) {
				missing++
			}
		}
		switch {
		case missing == 0:
			return nil
		case f.Err() != nil:
			return f.Err()
		case time.Since(t0) > limit:
			return fmt.Errorf("%d clients have not got everything after %v", missing, limit)
		case f.ctx.Err() != nil:
			return f.ctx.Err()
		}
	}
}

// Watch waits for a mark in the resources that come.
type Watch struct {
	fleet *Fleet
	mark  []byte
	each  int32
	left  atomic.Int32
	done  chan struct{}
	last  atomic.Int64
	// at is when each client had all of it, in nanoseconds.
	at []atomic.Int64
}

// Watch begins to wait for so many resources with a mark at each healthy client.
func (f *Fleet) Watch(mark string, each int) *Watch {
	w := &Watch{
		fleet: f, mark: []byte(mark), each: int32(each), done: make(chan struct{}),
		at: make([]atomic.Int64, len(f.clients)),
	}
	w.left.Store(int32(f.Healthy()))
	for _, c := range f.clients {
		c.marked.Store(0)
	}
	f.watch.Store(w)
	return w
}

// Wait returns when the last healthy client had acknowledged the last of them.
func (w *Watch) Wait(limit time.Duration) (time.Time, error) {
	select {
	case <-w.done:
		return time.Unix(0, w.last.Load()), nil
	case <-time.After(limit):
		late := fmt.Errorf("%d clients have not acknowledged the change after %v", w.left.Load(), limit)
		return time.Time{}, errors.Join(late, w.fleet.Err())
	}
}

func (w *Watch) acknowledged(c *client, n int) {
	if n == 0 || c.slow || c.hung || c.marked.Add(int32(n)) < w.each || w.at[c.id].Load() != 0 {
		return
	}
	now := time.Now().UnixNano()
	w.at[c.id].Store(now)
	for {
		last := w.last.Load()
		if now <= last || w.last.CompareAndSwap(last, now) {
			break
		}
	}
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
}

var errCut = errors.New("the connection was cut")
