package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/marchproxy/marchproxy/test/hostile"
)

// order is what the attacking process is told.
type order struct {
	Doors []door
	Only  string
}

type outcome struct {
	Name string
	hostile.Done
}

const wrongToken = "Authorization: Bearer mp_a-guess-that-opens-nothing"

// attack does to each door all that can be done to it, all at the same time, until standard input ends.
func attack(ctx context.Context, text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var mu sync.Mutex
	var all sync.WaitGroup
	out := []outcome{}
	begin := func(d door, t hostile.Target, attacks ...hostile.Attack) {
		for _, a := range attacks {
			name := d.Name + ": " + a.Name
			if len(t.From) > 1 {
				name += ", many addresses"
			}
			if !strings.Contains(name, o.Only) {
				continue
			}
			all.Go(func() {
				done := a.Run(ctx, t)
				mu.Lock()
				defer mu.Unlock()
				out = append(out, outcome{name, done})
			})
		}
	}
	for _, d := range o.Doors {
		one := hostile.Target{Addr: d.Addr, Path: d.Attacked, Headers: d.Wrong}
		many := one
		many.From = hostile.Many(1000)
		if d.GRPC {
			begin(d, one, hostile.Idle(600), hostile.Silent(600), hostile.SlowStreams(11), hostile.RapidReset(4, 500),
				hostile.Continuation(4), hostile.Pings(4, 500), hostile.Oversize(50))
			begin(d, many, hostile.Idle(600), hostile.Silent(600), hostile.Requests(20))
			continue
		}
		begin(d, one, hostile.SlowHeaders(600), hostile.SlowBodies(1100), hostile.Idle(600), hostile.LargeHeaders(5),
			hostile.LargeBodies(1), hostile.Requests(100))
		begin(d, many, hostile.SlowHeaders(600), hostile.Idle(600), hostile.Requests(100))
		if d.HTTP2 {
			begin(d, one, hostile.SlowStreams(11), hostile.RapidReset(4, 500), hostile.Continuation(4), hostile.Pings(4, 500))
		}
	}
	all.Wait()
	return json.NewEncoder(os.Stdout).Encode(out)
}
