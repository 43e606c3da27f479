package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/floor"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// Owner is the one that has the routes of a benchmark.
const Owner = "bench"

// Beside is what changes of one route cost beside a number of others; times are milliseconds.
type Beside struct {
	Hosts int
	// Floor, Seen and Live are of each change: at Envoy alone, until a request sees it, until wait=live returns.
	Floor, Seen, Live []float64
	// API, XDS, Envoy and FloorEnvoy are the CPU of one change, in milliseconds.
	API, XDS, Envoy, FloorEnvoy float64
	// Garbage is what the api and xds made for one change, in KB, and Collections how often each collected it meanwhile.
	Garbage, Collections [2]float64
}

// Measure changes routes one by one, in turns with the same at an Envoy alone.
func Measure(ctx context.Context, s *harness.System, routes *Routes, n, changes int) (b Beside, err error) {
	b.Hosts = n
	f, err := NewAlone(ctx, routes, n)
	if err != nil {
		return b, fmt.Errorf("floor: %w", err)
	}
	defer f.Close()
	a := probe.New(s.Proxy)
	defer a.Close()
	both := func(i int, mark string) error {
		seen, live, err := Change(ctx, s, routes, a, i, mark)
		if err != nil {
			return err
		}
		alone, err := f.Change(i, mark)
		b.Seen, b.Live, b.Floor = append(b.Seen, seen), append(b.Live, live), append(b.Floor, alone)
		return err
	}
	// The first changes warm both sides up. Marks are of this call alone: the routes may have those of another.
	own := strconv.FormatInt(time.Now().UnixNano(), 36)
	for k := range 10 {
		if err := both(k%n, fmt.Sprintf("%s-w%d", own, k)); err != nil {
			return b, err
		}
	}
	b.Seen, b.Live, b.Floor = nil, nil, nil
	pids := []int{s.Pid("api"), s.Pid("xds"), s.Pid("envoy"), f.envoy.Pid()}
	begin := make([]time.Duration, len(pids))
	for i, pid := range pids {
		begin[i] = floor.CPU(pid)
	}
	made, collected := memory(ctx, s)
	for k := range changes {
		if err := both((k*7919+13)%n, fmt.Sprintf("%s-%d", own, k)); err != nil {
			return b, err
		}
	}
	nowMade, nowCollected := memory(ctx, s)
	for i := range made {
		b.Garbage[i] = (nowMade[i] - made[i]) / 1024 / float64(changes)
		b.Collections[i] = nowCollected[i] - collected[i]
	}
	for i, into := range []*float64{&b.API, &b.XDS, &b.Envoy, &b.FloorEnvoy} {
		*into = float64((floor.CPU(pids[i]) - begin[i]).Microseconds()) / 1000 / float64(changes)
	}
	return b, nil
}

// memory is how many bytes the api and xds have allocated so far, and how often they have collected garbage.
func memory(ctx context.Context, s *harness.System) (made, collected [2]float64) {
	for i, url := range []string{s.API, s.XDS} {
		made[i], _ = Metric(ctx, s, url+"/metrics", "go_memstats_alloc_bytes_total")
		collected[i], _ = Metric(ctx, s, url+"/metrics", "go_gc_duration_seconds_count")
	}
	return made, collected
}

// Change changes route i, and asks the proxy until it is seen. It returns the milliseconds until then, and until
// wait=live returned.
func Change(
	ctx context.Context, s *harness.System, routes *Routes, p *probe.Conn, i int, mark string,
) (seen, live float64, err error) {
	done := make(chan error, 1)
	t0 := time.Now()
	go func() {
		err := Put(ctx, s, routes, i, mark, "?wait=live")
		live = Since(t0)
		done <- err
	}()
	err = until(p, Host(i), mark)
	seen = Since(t0)
	return seen, live, errors.Join(err, <-done)
}

// Put writes route i; with wait=live in the query it fails where the route is not live.
func Put(ctx context.Context, s *harness.System, routes *Routes, i int, mark, query string) error {
	return PutAt(ctx, s, s.API, routes, i, mark, query)
}

// PutAt is [Put] at one of several apis.
func PutAt(ctx context.Context, s *harness.System, api string, routes *Routes, i int, mark, query string) error {
	return PutRoute(ctx, s, api, Name(i), routes.Spec(i, mark), query)
}

// PutRoute writes any route.
func PutRoute(ctx context.Context, s *harness.System, api, name string, spec map[string]any, query string) error {
	raw, err := json.Marshal(map[string]any{"spec": spec}) // its owner stays
	if err != nil {
		return err
	}
	status, body, err := s.Call(ctx, http.MethodPut, api+"/v1/routes/"+name+query, string(raw))
	if err != nil {
		return err
	}
	if status != http.StatusOK && status != http.StatusCreated {
		return fmt.Errorf("put %s: %d %.500s", name, status, body)
	}
	if strings.Contains(query, "wait=live") {
		return isLive(body)
	}
	return nil
}

// until asks until the mark is seen.
func until(p *probe.Conn, name, mark string) error {
	for t0 := time.Now(); time.Since(t0) < 20*time.Second; time.Sleep(200 * time.Microsecond) {
		a, _, err := p.Get(name, "/")
		if err != nil {
			return err
		}
		if a.Status != 200 {
			return fmt.Errorf("%s answered %d during a change", name, a.Status)
		}
		if a.Header.Get("X-Mark") == mark {
			return nil
		}
	}
	return fmt.Errorf("%s does not show mark %s in 20 s", name, mark)
}

// Since is milliseconds.
func Since(t time.Time) float64 { return float64(time.Since(t).Microseconds()) / 1000 }
