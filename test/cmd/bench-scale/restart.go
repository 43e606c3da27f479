package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/test/bench"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// restart stops everything and starts it again.
func (m *scale) restart(ctx context.Context) error {
	if err := m.stopAgent(); err != nil {
		return err
	}
	m.agent = nil
	stop := time.Now()
	if err := m.Stop(); err != nil {
		return err
	}
	stopped := time.Since(stop)
	begin := time.Now()
	if err := m.Begin(); err != nil {
		return err
	}
	p := probe.New(m.Proxy)
	defer p.Close()
	limit, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	err := harness.Await(limit, func() bool {
		a, _, err := p.Get(bench.Host(m.loaded-1), "/")
		return err == nil && a.Status == http.StatusOK
	})
	if err != nil {
		return fmt.Errorf("nothing is served: %w\n%s", err, m.Output())
	}
	took := time.Since(begin)
	if err := m.AwaitReady(ctx); err != nil {
		return err
	}
	m.table.Bar(fmt.Sprintf("restart of everything, %d hosts, until a request is served",
		m.loaded), "< 15 s", took.Seconds() < m.slack*15,
		"%.1f s (stopping took %.1f s)", took.Seconds(), stopped.Seconds())
	for i := 0; i < m.loaded; i += max(1, m.loaded/100) {
		if a, _, err := p.Get(bench.Host(i), "/"); err != nil || a.Status != http.StatusOK {
			return errors.Join(fmt.Errorf("%s answers %d after the restart", bench.Host(i), a.Status), err)
		}
	}
	return nil
}

// restartXDS kills the xDS server under a connected Envoy.
func (m *scale) restartXDS(ctx context.Context) error {
	head, ok := bench.Metric(ctx, m.System, m.API+"/metrics", "marchproxy_api_revision")
	if !ok {
		return errors.New("the api does not say its revision")
	}
	if err := bench.AwaitLive(ctx, m.System, int64(head)); err != nil {
		return err
	}
	time.Sleep(time.Second) // what it keeps on its disk is written
	before, err := m.received(ctx)
	if err != nil {
		return err
	}
	old := m.Pid("xds")
	begin := time.Now()
	m.Kill("xds")
	limit, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	err = harness.Await(limit, func() bool {
		if pid := m.Pid("xds"); pid == 0 || pid == old {
			return false
		}
		revision, _ := bench.Metric(limit, m.System, m.XDS+"/metrics", "marchproxy_xds_live_revision")
		proxies, _ := bench.Metric(limit, m.System, m.XDS+"/metrics", "marchproxy_xds_proxies")
		return proxies > 0 && revision >= head
	})
	if err != nil {
		return fmt.Errorf("xds does not come back: %w", err)
	}
	took := time.Since(begin)
	name := fmt.Sprintf("restart of xds, %d hosts", m.loaded)
	m.table.Bar(name+", until Envoy is connected and has all", "< 5 s", took.Seconds() < m.slack*5, "%.1f s",
		took.Seconds())
	time.Sleep(time.Second) // an answer to what may have been sent
	after, err := m.received(ctx)
	if err != nil {
		return err
	}
	bytes, resources, said := after["bytes"]-before["bytes"], 0, ""
	delete(after, "bytes")
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if n := after[name] - before[name]; n != 0 {
			resources += n
			said += fmt.Sprintf(", %s %d", name, n)
		}
	}
	// An answer that says that nothing is new is a hundred bytes for each type.
	m.table.Bar(name+": sent again", "nothing (< 10 kB)", bytes < 10000 && resources == 0,
		"%d resources, %d bytes in all%s", resources, bytes, said)
	return m.oneMore(ctx)
}

// oneMore writes a route and waits until it is live: what came back works.
func (m *scale) oneMore(ctx context.Context) error {
	return bench.Put(ctx, m.System, m.routes, 0, strconv.FormatInt(time.Now().UnixNano(), 36), "?wait=live&timeout=60s")
}

// received is what Envoy has got of its xDS server: the bytes, and how often a resource came or changed.
func (m *scale) received(ctx context.Context) (map[string]int, error) {
	status, raw, err := m.Call(ctx, http.MethodGet, m.Admin+"/stats?usedonly", nil)
	if err != nil || status != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("stats: %d", status), err)
	}
	out := map[string]int{}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			continue // a histogram
		}
		switch {
		case name == "cluster."+bootstrap.XDSCluster+".upstream_cx_rx_bytes_total":
			out["bytes"] = n
		case changed.MatchString(name):
			out[changed.FindStringSubmatch(name)[1]] += n
		}
	}
	if out["bytes"] == 0 || out["listener_added"] == 0 {
		return nil, fmt.Errorf("envoy does not tell what it has got: %.500s", raw)
	}
	return out, nil
}

// changed are Envoy's statistics of what it has got and not had before.
var changed = regexp.MustCompile(
	`^(?:listener_manager|cluster_manager|cluster\..*|http\..*)\.(listener_added|listener_modified|listener_in_place_updated|` +
		`listener_removed|cluster_added|cluster_modified|cluster_removed|update_rejected|membership_change)$`,
)
