package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// atEnvoy is what Envoy has: ready or draining by address, by cluster.
func (t *trial) atEnvoy(ctx context.Context) (map[string]map[string]string, error) {
	status, raw, err := t.s.AdminSocket().Do(ctx, http.MethodGet, "/clusters?format=json")
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("clusters: %d %w", status, err)
	}
	var all struct {
		ClusterStatuses []struct {
			Name         string
			HostStatuses []struct {
				Address struct {
					SocketAddress struct {
						Address string `json:"address"`
					} `json:"socket_address"`
				} `json:"address"`
				HealthStatus struct {
					EDS string `json:"eds_health_status"`
				} `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	out := map[string]map[string]string{}
	for _, c := range all.ClusterStatuses {
		out[c.Name] = map[string]string{}
		for _, h := range c.HostStatuses {
			state := "ready"
			if h.HealthStatus.EDS == "DRAINING" {
				state = "draining"
			}
			out[c.Name][h.Address.SocketAddress.Address] = state
		}
	}
	return out, nil
}

// look is a state of an address at Envoy, and when it was first seen.
type look struct {
	state string
	at    time.Time
}

// watch looks at Envoy again and again, and holds it against what should be there.
func (t *trial) watch(ctx context.Context) {
	last := time.Now()
	for ctx.Err() == nil {
		if has, err := t.atEnvoy(ctx); err == nil {
			now := time.Now()
			t.note(has, now, now.Sub(last))
			last = now
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// note remembers what Envoy has, some time after it was looked at last, and compares.
func (t *trial) note(has map[string]map[string]string, now time.Time, since time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blind = max(t.blind, since)
	for c, hosts := range has {
		if t.seen[c] == nil {
			t.seen[c] = map[string][]look{}
		}
		for addr := range hosts {
			if t.seen[c][addr] == nil {
				t.seen[c][addr] = []look{{}}
			}
		}
	}
	for c, all := range t.seen {
		for addr, looks := range all {
			if state := has[c][addr]; state != looks[len(looks)-1].state {
				all[addr] = append(looks, look{state, now})
			}
		}
	}
	for addr, e := range t.expected {
		if took, so := e.took(t.seen[e.cluster][addr]); so {
			t.judge(addr, e, took)
			delete(t.expected, addr)
		} else if took := now.Sub(e.at); took > t.within && !e.late {
			e.late = true // how late is said when it is so
			fmt.Printf("%s of %s is not %s after %s\n", addr, e.cluster, e.what, took.Round(time.Millisecond))
		}
	}
}

// judge takes that something was at Envoy after a while.
func (t *trial) judge(addr string, e *expectation, took time.Duration) {
	t.slowest = max(t.slowest, took)
	if took > t.within {
		t.slow = append(t.slow, fmt.Sprintf("%s of %s was %s after %s", addr, e.cluster, e.what, took.Round(time.Millisecond)))
	}
}

// took is after what time Envoy was first seen as expected. An event may be known here after Envoy has followed it.
func (e *expectation) took(looks []look) (time.Duration, bool) {
	if len(looks) == 0 {
		looks = []look{{}}
	}
	for i, l := range looks {
		if i+1 < len(looks) && !looks[i+1].at.After(e.at) {
			continue // that was before
		}
		// A draining endpoint may be left out.
		if l.state == e.what || l.state == "" && e.what != "ready" {
			return max(0, l.at.Sub(e.at)), true
		}
	}
	return 0, false
}

// settle waits until nothing is outstanding, a minute at the most.
func (t *trial) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var left []string
	if err := harness.Await(ctx, func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		left = left[:0]
		for addr, e := range t.expected {
			left = append(left, fmt.Sprintf("%s of %s is not %s", addr, e.cluster, e.what))
		}
		return len(left) == 0
	}); err != nil {
		return fmt.Errorf("after a minute: %s: %w", strings.Join(left[:min(len(left), 10)], "; "), err)
	}
	return nil
}

// load sends requests to a service, and counts those that fail while it is up, and has been for a while.
func (t *trial) load(ctx context.Context, i int) {
	c := probe.New(t.s.Proxy)
	defer c.Close()
	s := service(i)
	tick := time.NewTicker(time.Second * time.Duration(t.services) / time.Duration(t.rate))
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		began := time.Now()
		up := t.isUp(s, began)
		a, _, err := c.Get(s+".test", "/")
		if !up || !t.isUp(s, began) {
			continue
		}
		t.sent.Add(1)
		if err != nil || a.Status != http.StatusOK {
			if t.wasCut(ctx, s, began, time.Now()) {
				t.cut.Add(1)
				continue
			}
			t.failed.Add(1)
			t.mu.Lock()
			if len(t.examples) < 10 {
				t.examples = append(t.examples, fmt.Sprintf("%s %s: %d %.80s %v", began.Format("15:04:05.000"), s, a.Status,
					a.Body, err))
			}
			t.mu.Unlock()
		}
	}
}

// isUp says whether a service has had a container that takes requests all the time since a while before a moment.
func (t *trial) isUp(s string, at time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.up[s]) > 0 && at.Sub(t.since[s]) > t.within && len(t.expected) == 0 || len(t.up[s]) > 0 &&
		at.Sub(t.since[s]) > 2*t.within
}

// wasCut says whether a request was under way, or had just been sent, when a container of its service was killed: what was
// answered by a process that is gone without a word nobody can answer, and whether it may be asked twice its owner alone
// knows (the route's retry). Requests that come later have to go elsewhere.
func (t *trial) wasCut(ctx context.Context, s string, began, end time.Time) bool {
	const off = 100 * time.Millisecond // between the signal and the time that the event says
	select {
	case <-time.After(time.Second): // for the event
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.killed[s]
	return at.After(began.Add(-off)) && at.Before(end.Add(off))
}
