package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/test/floor"
	"github.com/marchproxy/marchproxy/test/harness"
)

// door is one of the system's ports: what its client asks, and what is attacked of it.
type door struct {
	Name, Addr string
	// Attacked is the path that the attacks name, and Wrong what they send to show who they are, a line each.
	Attacked    string
	Wrong       []string
	HTTP2, GRPC bool
	// ask is what a client does who may.
	ask func(ctx context.Context) error
}

// parts are the processes whose memory is watched.
var parts = []string{"api", "xds", "envoy"}

type latencies struct {
	took   []time.Duration
	failed int
	why    error
}

type watched struct {
	doors  []latencies
	memory []int // in MiB, the most, by part
}

// doorsOf makes a service whose backend reads whole bodies, so that slow ones stay open, and tells the system's doors.
func doorsOf(ctx context.Context, s *harness.System) ([]door, error) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // as far as it comes
		_, _ = io.WriteString(w, "hello\n")
	}))
	_, port, err := net.SplitHostPort(backend.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	const document = `{"version":"1","services":[{"name":"reader","hosts":["127.0.0.1"],"port":%s,"protocol":"http"}],
		"routes":[{"name":"reader","prefix":"/","cluster_name":"reader","hosts":["reader.example.com"]}]}`
	config := fmt.Sprintf(document, port)
	if status, raw, err := s.Call(ctx, "POST", s.XDS+"/v1/config", config); err != nil || status >= 300 {
		return nil, errors.Join(fmt.Errorf("POST /v1/config: %d %s", status, raw), err)
	}
	key, err := s.ClusterKey()
	if err != nil {
		return nil, err
	}
	client := s.HTTP()
	client.Timeout = 30 * time.Second
	proxied := &http.Client{Timeout: 30 * time.Second}
	get := func(c *http.Client, method, url, host, body string) func(context.Context) error {
		return func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
			if err != nil {
				return err
			}
			if host != "" {
				req.Host = host
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := c.Do(req)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }() // it is read to its end
			raw, err := io.ReadAll(resp.Body)
			if err == nil && resp.StatusCode >= 300 {
				err = fmt.Errorf("%s %s: %d %s", method, url, resp.StatusCode, raw)
			}
			return err
		}
	}
	addr := func(url string) string { return strings.TrimPrefix(url, "http://") }
	json := "Content-Type: application/json"
	return []door{
		{
			Name: "8000, the api", Addr: addr(s.API), Attacked: "/v1/apply", Wrong: []string{wrongToken, json},
			ask: get(client, "GET", s.API+"/v1/services/reader", "", ""),
		},
		{
			Name: "19000, xds HTTP", Addr: addr(s.XDS), Attacked: "/v1/config", Wrong: []string{wrongToken, json},
			ask: get(client, "POST", s.XDS+"/v1/config", "", config),
		},
		{
			Name: "18000, xds gRPC", Addr: s.GRPC, GRPC: true, HTTP2: true,
			Attacked: "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
			Wrong:    []string{"content-type: application/grpc", "te: trailers", "x-api-key: a-key-that-opens-nothing"},
			ask: func(ctx context.Context) error { // a connection of its own each time, as an Envoy that starts has
				ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
				defer cancel()
				_, err := bootstrap.AskDrainTime(ctx, bootstrap.Config{
					XDSServer: s.GRPC, APIKey: key, NodeID: "quiet",
					Gateway: "default",
				})
				return err
			},
		},
		{
			Name: "10000, the proxy", Addr: s.Proxy, Attacked: "/", Wrong: []string{"X-From: hostile"}, HTTP2: true,
			ask: get(proxied, "GET", "http://"+s.Proxy+"/", "reader.example.com", ""),
		},
	}, nil
}

// every is how often the client of a door asks.
const every = 20 * time.Millisecond

// watch asks at all doors as long as it is told, and watches the memory.
func watch(ctx context.Context, s *harness.System, doors []door, whole time.Duration) watched {
	out := watched{make([]latencies, len(doors)), make([]int, len(parts))}
	end := time.Now().Add(whole)
	var all sync.WaitGroup
	for i, d := range doors {
		all.Go(func() {
			l := &out.doors[i]
			for time.Now().Before(end) {
				t0 := time.Now()
				err := d.ask(ctx)
				if l.took = append(l.took, time.Since(t0)); err != nil {
					l.failed++
					l.why = err
				}
				time.Sleep(every)
			}
		})
	}
	all.Go(func() {
		for time.Now().Before(end) {
			for i, name := range parts {
				out.memory[i] = max(out.memory[i], floor.RSS(s.Pid(name)))
			}
			time.Sleep(250 * time.Millisecond)
		}
	})
	all.Wait()
	return out
}
