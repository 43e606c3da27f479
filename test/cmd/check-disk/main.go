// Command check-disk fills the disk of NATS, of PostgreSQL, of PostgreSQL's log and of xds, each a small file system of
// its own, under a load of writes, and empties it again. The true reason must be shown within 5 s, everything must work
// again within 30 s of room without anybody's help, no acknowledged write may be lost, none that was refused may be
// there, and Envoy must serve throughout.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/pkg/disktest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/load"
)

func main() {
	rounds := flag.Int("rounds", 3, "how often each disk is filled")
	hold := flag.Duration("hold", 10*time.Second, "how long it stays full after the reason is shown")
	only := flag.String("only", "", "one part alone: nats, nats-single, postgres, wal or xds")
	flag.Parse()
	os.Exit(disktest.Main(func() int {
		if err := run(context.Background(), *rounds, *hold, *only); err != nil {
			fmt.Fprintln(os.Stderr, "check-disk:", err)
			return 1
		}
		return 0
	}))
}

const (
	// shown is how long the true reason may take.
	shown = 5 * time.Second
	// recovered is how long it may take until everything works again, from when there is room.
	recovered = 30 * time.Second
	// exhausted is how long it may take until what is full is felt: PostgreSQL goes on with what its log has.
	exhausted = 2 * time.Minute

	writers = 4
	// pace leaves Envoy the time to follow: how fast that is, is not the question here.
	pace = 20 * time.Millisecond
)

// part is one whose disk is filled.
type part struct {
	name string
	// dir is where it keeps what it has, in the system's directory, and bytes what its disk holds.
	dir   string
	bytes int
	// ballast is how much the writes carry, in bytes; single, that each is of one object: after one that it cannot store
	// NATS takes none any more, though there is room, which it does after several at once.
	ballast int
	single  bool
	// trouble is the part that GET /v1/status speaks of, and in it the reason.
	trouble, reason string
	// unready says that /readyz tells, too.
	unready bool
}

var parts = []part{
	{name: "nats", dir: "nats", bytes: 24 << 20, trouble: "stream", reason: "no space left on device", unready: true},
	{
		name: "nats-single", dir: "nats", bytes: 24 << 20, single: true, trouble: "stream", reason: "no space left on device",
		unready: true,
	},
	{
		name: "postgres", dir: "postgres/data", bytes: 224 << 20, trouble: "database", reason: "No space left on device",
		unready: true,
	},
	{
		name: "wal", dir: "postgres/data/pg_wal", bytes: 128 << 20, ballast: 3000, trouble: "database",
		reason: "No space left on device", unready: true,
	},
	{name: "xds", dir: "xds", bytes: 8 << 20, trouble: "xds dev", reason: "no space left on device"},
}

func run(ctx context.Context, rounds int, hold time.Duration, only string) error {
	for _, p := range parts {
		if only != "" && only != p.name {
			continue
		}
		if err := p.run(ctx, rounds, hold); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// run fills the part's disk again and again, in a system of its own.
func (p part) run(ctx context.Context, rounds int, hold time.Duration) (err error) {
	s, err := harness.Start(ctx, "--no-demo")
	if err != nil {
		return err
	}
	disk, err := p.move(ctx, s)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	defer func() { err = errors.Join(err, s.Stop(), disk.Unmount(), os.RemoveAll(s.Dir)) }()
	if err := load.Prepare(ctx, s); err != nil {
		return err
	}
	under, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var acked, served, failed atomic.Int64
	all := load.Writers(writers)
	for _, w := range all {
		w.Ballast, w.Single, w.Pause = p.ballast, p.single, pace
		wg.Go(func() { w.Run(under, s, &acked) })
	}
	wg.Go(func() { load.Steady(under, s.Proxy, &served, &failed) })
	for n := range rounds {
		if err = p.round(ctx, s, disk, n+1, hold); err != nil {
			break
		}
	}
	stop()
	wg.Wait()
	if err != nil {
		return errors.Join(err, p.log(s))
	}
	fmt.Printf("%s: %d writes acknowledged, %d requests, %d failed\n", p.name, acked.Load(), served.Load(), failed.Load())
	if failed.Load() > 0 {
		return errors.New("envoy did not serve throughout")
	}
	return load.Check(ctx, s, all, 0)
}

// move puts what the part has on a small disk.
func (p part) move(ctx context.Context, s *harness.System) (*disktest.Disk, error) {
	if err := s.Stop(); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.Dir, p.dir)
	aside := filepath.Join(s.Dir, "aside")
	if out, err := exec.CommandContext(ctx, "cp", "-a", dir, aside).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy: %w\n%s", err, out)
	}
	disk, err := disktest.Mount(dir, p.bytes)
	if err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", aside+"/.", dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy: %w\n%s", err, out)
	}
	return disk, s.Run(ctx)
}

// round fills the disk, looks for the reason, empties it, and waits until all is well.
func (p part) round(ctx context.Context, s *harness.System, disk *disktest.Disk, n int, hold time.Duration) error {
	before := complaints(s)
	full := time.Now()
	if err := disk.Fill(); err != nil {
		return err
	}
	felt, err := p.felt(ctx, s)
	if err != nil {
		return err
	}
	t0 := time.Now()
	if err := p.shown(ctx, s); err != nil {
		return err
	}
	told := time.Since(t0)
	if p.name == "xds" { // which must start on a full disk, too
		if err := restart(ctx, s); err != nil {
			return err
		}
	}
	select {
	case <-time.After(hold): // the load goes on
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := p.answers(ctx, s); err != nil {
		return err
	}
	if lines := complaints(s) - before; lines > 20 {
		return fmt.Errorf("the api's log has %d lines about it after %s", lines, time.Since(full))
	}
	if err := disk.Empty(); err != nil {
		return err
	}
	room := time.Now()
	if err := p.well(ctx, s); err != nil {
		return err
	}
	fmt.Printf("%s, round %d: felt after %.1f s, the reason shown %.1f s after that, all well %.1f s after "+
		"there was room\n",
		p.name, n, felt.Sub(full).Seconds(), told.Seconds(), time.Since(room).Seconds())
	return nil
}

// restart kills xds and waits until it serves.
func restart(ctx context.Context, s *harness.System) error {
	old := s.Pid("xds")
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		return err
	}
	return until(ctx, recovered, func() string {
		status, _, err := s.Call(ctx, "GET", s.XDS+"/readyz", nil)
		if err != nil || status != 200 || s.Pid("xds") == old {
			return fmt.Sprintf("xds does not start on a full disk: %d %v", status, err)
		}
		return ""
	})
}

// complaints counts the errors in the api's log.
func complaints(s *harness.System) int {
	raw, err := os.ReadFile(filepath.Join(s.Dir, "log", "api.log"))
	if err != nil {
		return 0
	}
	return strings.Count(string(raw), `"level":"error"`) + strings.Count(string(raw), `"level":"warn"`)
}

// log is the end of the api's log.
func (p part) log(s *harness.System) error {
	raw, err := os.ReadFile(filepath.Join(s.Dir, "log", "api.log"))
	if err != nil {
		return err
	}
	return fmt.Errorf("the api's log ends with\n%s", raw[max(0, len(raw)-4000):])
}
