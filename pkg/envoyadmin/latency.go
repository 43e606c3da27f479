package envoyadmin

import (
	"cmp"
	"context"
	"encoding/base64"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// How latencies are measured. An order of places is made of them, and each change of that moves requests: so a latency
// is what it was until another one has been measured for some time, and does not change again at once.
const (
	// measureEvery is the time between two measurements of a place, and relist that between two looks at where endpoints
	// are, which cost Envoy's main thread more.
	measureEvery = 5 * time.Second
	relist       = 30 * time.Second
	// tries is how many requests a measurement has, of which the fastest counts: another one may have had to connect.
	// Each may take probeTimeout, which is what counts then; it is the listener's.
	tries        = 2
	probeTimeout = 2 * time.Second
	// probesAtATime is how many requests are under way.
	probesAtATime = 8
	// window is of how many measurements a latency is the median, and enough how many there must be.
	window, enough = 5, 3
	// A latency that differs by more than leastShare of the smaller one and by more than leastDifference milliseconds, at
	// lasting measurements in a row, is another one, unless it was changed within the last calm.
	leastShare, leastDifference = 0.2, 1.0
	lasting                     = 3
	calm                        = 30 * time.Second
	// old is how long a place is known by what was measured there.
	old = 5 * time.Minute
	// waiting is how long a service whose places have not all been measured is not spoken of.
	waiting = 30 * time.Second
)

// meter measures how soon the endpoints of services answer, by requests like those of their health checks that go
// through the Envoy (package bootstrap), one endpoint of each place at a time. Which services those are the xDS server
// says, in the Envoy's runtime. The Envoy is asked for that alone while there are none.
type meter struct {
	admin  Admin
	client *http.Client

	mu  sync.Mutex
	out []status.PlaceLatency

	// By run alone.
	services map[string]probed
	listed   time.Time
	tracks   map[spot]*track
	turn     int
}

// probed is a service that is measured.
type probed struct {
	// host and path are those of the requests.
	host, path string
	since      time.Time
	// places have the addresses of their endpoints that may be asked, in order; a place may have none.
	places map[locality.Place][]string
}

// whole says whether each of its places has somebody to ask.
func (s probed) whole() bool {
	for _, list := range s.places {
		if len(list) == 0 {
			return false
		}
	}
	return len(s.places) > 0
}

// spot is a place of a service.
type spot struct {
	service string
	place   locality.Place
}

func newMeter(admin Admin, socket string) *meter {
	return &meter{
		admin: admin, services: map[string]probed{}, tracks: map[spot]*track{},
		client: &http.Client{Timeout: probeTimeout + time.Second, Transport: &http.Transport{
			MaxIdleConnsPerHost: probesAtATime, IdleConnTimeout: time.Minute, DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
		}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// latencies are what was measured last, in order. Nobody changes them any more.
func (m *meter) latencies() []status.PlaceLatency {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.out
}

func (m *meter) run(ctx context.Context) {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		m.look(ctx, time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look measures once. An Envoy that does not answer is not measured: what is known of it stays for a while.
func (m *meter) look(ctx context.Context, now time.Time) {
	limit, cancel := context.WithTimeout(ctx, measureEvery-time.Second)
	defer cancel()
	if asked, err := m.asked(limit); err == nil {
		m.follow(limit, asked, now)
		for s, ms := range m.probe(limit) {
			if m.tracks[s] == nil {
				m.tracks[s] = &track{}
			}
			m.tracks[s].add(ms, now)
		}
	}
	out := m.told(now)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.out = out
}

// asked are the services that are to be measured, each with the host and the path of the requests.
func (m *meter) asked(ctx context.Context) (map[string][2]string, error) {
	var doc struct {
		Entries map[string]struct {
			Value string `json:"final_value"`
		} `json:"entries"`
	}
	if err := m.admin.read(ctx, "/runtime", &doc); err != nil {
		return nil, err
	}
	out := map[string][2]string{}
	for key, e := range doc.Entries {
		service, is := strings.CutPrefix(key, bootstrap.RuntimeLatency)
		path, host, whole := strings.Cut(e.Value, " ")
		if is && whole {
			out[service] = [2]string{host, path}
		}
	}
	return out, nil
}

// follow takes over which services are measured, and looks where their endpoints are where that is due.
func (m *meter) follow(ctx context.Context, asked map[string][2]string, now time.Time) {
	due := now.Sub(m.listed) >= relist
	for name := range m.services {
		if _, still := asked[name]; !still {
			delete(m.services, name)
			m.forget(func(at spot) bool { return at.service == name })
		}
	}
	for name, how := range asked {
		s, known := m.services[name]
		if !known {
			s.since, due = now, true
		}
		// A new one may not be there yet, or its endpoints not checked.
		due = due || !s.whole() && now.Sub(s.since) < waiting
		s.host, s.path = how[0], how[1]
		m.services[name] = s
	}
	if !due || len(asked) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(asked))
	for some := range slices.Chunk(names, together) {
		found, err := m.list(ctx, some)
		if err != nil {
			return // the next look asks again
		}
		for _, name := range some {
			s := m.services[name]
			s.places = found[name]
			m.services[name] = s
			m.forget(func(at spot) bool { _, there := s.places[at.place]; return at.service == name && !there })
		}
	}
	m.listed = now
}

func (m *meter) forget(which func(spot) bool) {
	maps.DeleteFunc(m.tracks, func(at spot, _ *track) bool { return which(at) })
}

// list are the places of some services, with the endpoints that get requests.
func (m *meter) list(ctx context.Context, services []string) (map[string]map[locality.Place][]string, error) {
	clusters, err := m.admin.clusters(ctx, services)
	if err != nil {
		return nil, err
	}
	out := map[string]map[locality.Place][]string{}
	for _, c := range clusters {
		places := map[locality.Place][]string{}
		for _, h := range c.Hosts {
			at := locality.FromEnvoy(h.Locality)
			places[at] = slices.Clip(places[at])
			if !h.Health.Failed && !h.Health.Ejected && h.Health.EDS == "HEALTHY" {
				places[at] = append(places[at], h.address())
			}
		}
		for _, list := range places {
			slices.Sort(list)
		}
		out[c.Name] = places
	}
	return out, nil
}

// probe measures each place once, in no order: what time does not suffice for is something else at each look.
func (m *meter) probe(ctx context.Context) map[spot]float64 {
	out, all := map[spot]float64{}, sync.WaitGroup{}
	var mu sync.Mutex
	free := make(chan struct{}, probesAtATime)
	m.turn++
	for at, s := range m.spots() {
		list := s.places[at.place]
		if len(list) == 0 {
			continue
		}
		address := list[m.turn%len(list)]
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			if ms, ok := m.measure(ctx, at.service, s, address); ok {
				mu.Lock()
				defer mu.Unlock()
				out[at] = ms
			}
		})
	}
	all.Wait()
	return out
}

// spots are what is measured, [status.MaxLatencies] at most.
func (m *meter) spots() map[spot]probed {
	out := map[spot]probed{}
	for _, name := range slices.Sorted(maps.Keys(m.services)) {
		s := m.services[name]
		if len(out)+len(s.places) > status.MaxLatencies {
			break
		}
		for p := range s.places {
			out[spot{name, p}] = s
		}
	}
	return out
}

// measure asks an endpoint; not ok where it does not answer, which its health is about.
func (m *meter) measure(ctx context.Context, service string, s probed, address string) (ms float64, ok bool) {
	best := math.Inf(1)
	for try := range tries {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy/", nil)
		if err != nil {
			return 0, false
		}
		req.Host, req.URL.Opaque = s.host, s.path // as it is written
		req.Header.Set("User-Agent", "marchproxy-latency")
		req.Header.Set(bootstrap.ProbeService, service)
		req.Header.Set(bootstrap.ProbeEndpoint, base64.StdEncoding.EncodeToString([]byte(address)))
		began := time.Now()
		resp, err := m.client.Do(req)
		switch {
		case err != nil && try > 0:
			return best, true // it is slow, and there is no time for another one
		case err != nil && time.Since(began) >= probeTimeout:
			return milliseconds(probeTimeout), true
		case err != nil:
			return 0, false
		}
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // what is longer costs a connection
		_ = resp.Body.Close()                                           // read only
		switch took := time.Since(began); {
		case resp.StatusCode == http.StatusGatewayTimeout:
			return milliseconds(probeTimeout), true
		case err != nil || resp.StatusCode >= http.StatusInternalServerError:
			return 0, false
		default:
			best = min(best, milliseconds(took))
		}
	}
	return best, true
}

func milliseconds(d time.Duration) float64 { return math.Round(float64(d.Microseconds())) / 1000 }

// told is what a report has. A service of which one place is known and another one is not yet would be ordered by that
// alone, and soon again; after a while it is spoken of all the same.
func (m *meter) told(now time.Time) []status.PlaceLatency {
	m.forget(func(at spot) bool { return now.Sub(m.tracks[at].seen) > old })
	var out []status.PlaceLatency
	missing := map[string]bool{}
	for at, s := range m.spots() {
		t := m.tracks[at]
		if t == nil || t.steady == 0 {
			missing[at.service] = missing[at.service] || now.Sub(s.since) < waiting
			continue
		}
		out = append(out, status.PlaceLatency{
			Service: at.service, Cloud: at.place.Cloud, Region: at.place.Region, Zone: at.place.Zone,
			Milliseconds: t.median(), Steady: t.steady,
		})
	}
	out = slices.DeleteFunc(out, func(l status.PlaceLatency) bool { return missing[l.Service] })
	slices.SortFunc(out, func(a, b status.PlaceLatency) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), a.Place().Compare(b.Place()))
	})
	return out
}

// track is what was measured at a spot.
type track struct {
	last []float64
	// steady is 0 before there is enough.
	steady float64
	// off counts the measurements in a row whose median is another latency than steady.
	off           int
	changed, seen time.Time
}

func (t *track) median() float64 {
	list := slices.Sorted(slices.Values(t.last))
	return list[(len(list)-1)/2]
}

// add takes a measurement, in milliseconds.
func (t *track) add(ms float64, now time.Time) {
	t.seen = now
	t.last = append(t.last, max(ms, 0.001))
	t.last = t.last[max(0, len(t.last)-window):]
	if len(t.last) < enough {
		return
	}
	is := t.median()
	switch difference := math.Abs(is - t.steady); {
	case t.steady == 0:
		t.steady, t.changed = is, now
	case difference <= leastDifference || difference <= leastShare*min(is, t.steady):
		t.off = 0
	default:
		if t.off++; t.off >= lasting && now.Sub(t.changed) >= calm {
			t.steady, t.changed, t.off = is, now, 0
		}
	}
}
