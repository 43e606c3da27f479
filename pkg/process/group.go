package process

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Group runs parts until the first one ends or the context does, then stops them in the reverse order of
// their addition: each part's context is cancelled only when those added after it have ended.
type Group struct {
	parts []part
}

type part struct {
	name string
	run  func(context.Context) error
}

// Add appends a part. Its run must return soon after its context is cancelled.
func (g *Group) Add(name string, run func(context.Context) error) {
	g.parts = append(g.parts, part{name, run})
}

// Run starts all parts in order and returns the errors of those that failed, each with its name. A part
// that ends by itself without an error stops the group as well.
func (g *Group) Run(ctx context.Context) error {
	var mu sync.Mutex
	var errs []error
	ended := make(chan struct{}, len(g.parts))
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	all := make([]running, len(g.parts))
	for i, p := range g.parts {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := running{cancel, make(chan struct{})}
		all[i] = r
		go func() {
			defer close(r.done)
			if err := p.run(own); err != nil && !errors.Is(err, context.Canceled) {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
				mu.Unlock()
			}
			ended <- struct{}{}
		}()
	}
	select {
	case <-ctx.Done():
	case <-ended:
	}
	for i := len(all) - 1; i >= 0; i-- {
		all[i].cancel()
		<-all[i].done
	}
	mu.Lock()
	defer mu.Unlock()
	return errors.Join(errs...)
}
