package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/load"
)

// step is one thing that is done to the system, so long after the one before.
type step struct {
	after time.Duration
	what  string // kill, backup, purge, older stream, older database, rest
	parts []string
}

func (s step) String() string {
	return strings.TrimSpace(fmt.Sprintf("after %v: %s %s", s.after, s.what, strings.Join(s.parts, " and ")))
}

// plan is decided by the seed alone: kills of one part and of two in turns; a backup is taken after the first, and
// after every third comes one of the rarer events, each before any comes again.
func plan(rng *rand.Rand, kills int) []step {
	pause := func() time.Duration { return time.Duration(300+rng.IntN(1500)) * time.Millisecond }
	parts, rare := []string{"api", "xds", "nats", "postgres"}, []string{"purge", "older stream", "older database"}
	var out []step
	for k := range kills {
		rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		out = append(out, step{pause(), "kill", slices.Clone(parts[:1+k%2])})
		if k == 0 {
			out = append(out, step{pause(), "backup", nil})
		}
		if k%3 == 2 {
			n := k / 3 % len(rare)
			if n == 0 {
				rng.Shuffle(len(rare), func(i, j int) { rare[i], rare[j] = rare[j], rare[i] })
			}
			out = append(out, step{pause(), rare[n], nil})
		}
	}
	return out
}

func (s step) do(ctx context.Context, sys *harness.System, all []*load.Writer) error {
	switch s.what {
	case "kill":
		sys.Kill(s.parts...)
		return nil
	case "rest":
		return nil
	case "purge":
		return purge(ctx, sys)
	case "backup":
		return sys.Down(ctx, func() error {
			for _, w := range all {
				w.Remember()
			}
			for _, part := range []string{"nats", "postgres"} {
				if _, err := sys.Backup(ctx, part, "old"); err != nil {
					return err
				}
			}
			return nil
		}, "api", "nats", "postgres")
	case "older stream":
		return sys.Down(ctx, func() error { return restore(ctx, sys, "nats") }, "nats")
	default:
		return sys.Down(ctx, func() error {
			if err := restore(ctx, sys, "postgres"); err != nil {
				return err
			}
			for _, w := range all {
				w.GoBack()
			}
			return nil
		}, "api", "postgres")
	}
}

func restore(ctx context.Context, sys *harness.System, part string) error {
	return sys.Restore(ctx, part, filepath.Join(sys.Dir, "backup-"+part+"-old"))
}

// purge empties the stream, as soon as NATS is there.
func purge(ctx context.Context, sys *harness.System) error {
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	url, err := sys.NATS()
	if err != nil {
		return err
	}
	nc, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for {
		st, err := js.Stream(limit, stream.Name)
		if err == nil {
			err = st.Purge(limit)
		}
		if err == nil || limit.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond) // NATS, or its stream, is not there yet
	}
}
