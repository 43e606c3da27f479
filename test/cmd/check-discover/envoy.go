package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
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

// watch holds Envoy against what should be there.
func (t *trial) watch(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		has, err := t.atEnvoy(ctx)
		if err == nil {
			t.compare(has, began)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (t *trial) compare(has map[string]map[string]string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, e := range t.expected {
		state := has[e.cluster][addr]
		// A draining endpoint may be left out, and one that is gone is.
		right := state == e.what || e.what == "draining" && state == "" || e.what == "gone" && state == ""
		took := now.Sub(e.at)
		if right {
			t.slowest = max(t.slowest, took)
		}
		if took > t.within {
			t.slow = append(t.slow, fmt.Sprintf("%s %s of %s: %q after %s", addr, e.what, e.cluster, state,
				took.Round(time.Millisecond)))
		}
		if right || took > t.within {
			delete(t.expected, addr)
		}
	}
}

// settle waits until nothing is outstanding.
func (t *trial) settle(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return harness.Await(ctx, func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.expected) == 0
	})
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
