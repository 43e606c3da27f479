package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
)

// client is an Envoy that acknowledges everything at once, unless it hangs.
type client struct {
	grpc.ServerStream
	ctx  context.Context
	in   chan *discoveryv3.DeltaDiscoveryRequest
	hung atomic.Bool
	stop func()
	owed []*discoveryv3.DeltaDiscoveryRequest
}

func (c *client) Context() context.Context { return c.ctx }

func (c *client) Send(r *discoveryv3.DeltaDiscoveryResponse) error {
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	if c.hung.Load() {
		c.owed = append(c.owed, ack)
		return nil
	}
	c.in <- ack
	return nil
}

func (c *client) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	select {
	case r := <-c.in:
		return r, nil
	case <-c.ctx.Done():
		return nil, c.ctx.Err()
	}
}

func dial(tb testing.TB, f *fleet.Fleet, name string) *client {
	tb.Helper()
	c := &client{in: make(chan *discoveryv3.DeltaDiscoveryRequest, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	c.ctx, c.stop = ctx, func() {
		cancel()
		<-done
	}
	for _, t := range []string{"cluster.v3.Cluster", "listener.v3.Listener", "route.v3.ScopedRouteConfiguration"} {
		c.in <- &discoveryv3.DeltaDiscoveryRequest{
			Node:    &corev3.Node{Id: name, Cluster: resource.DefaultGateway},
			TypeUrl: "type.googleapis.com/envoy.config." + t,
		}
	}
	go func() {
		defer close(done)
		_ = ads.NewServer(f).DeltaAggregatedResources(c) // it ends with the test
	}()
	tb.Cleanup(c.stop)
	return c
}

// heard is a reporter with what somebody has heard of it.
type heard struct {
	tb testing.TB
	r  *fleet.Reporter
	v  *status.View
}

// look has the reporter look and say what is new, and answers how urgent that was.
func (h *heard) look() status.News {
	h.tb.Helper()
	news, _ := h.r.Look(time.Now())
	pages, s, err := h.r.Say(time.Now())
	if err != nil {
		h.tb.Fatal(err)
	}
	for _, m := range pages {
		var p status.XdsPage
		if err := json.Unmarshal(m.Data, &p); err != nil {
			h.tb.Fatal(err)
		}
		h.v.Page(p, true)
	}
	if _, ok := h.v.Report(s, true); !ok || !h.v.Whole() {
		h.tb.Fatalf("the report is not taken, or not whole: %+v", s)
	}
	return news
}

// says is what was heard last.
func (h *heard) says() string {
	var out []string
	for p := range h.v.Proxies {
		out = append(out, fmt.Sprintf("%s at %d", p.ID, h.v.Applied(p)))
	}
	for a := range h.v.Absent {
		out = append(out, fmt.Sprintf("%s gone at %d", a.Proxy.ID, a.Proxy.AppliedRevision))
	}
	for _, l := range h.v.Head.Lagging {
		out = append(out, fmt.Sprintf("%s lacks %s", l.ID, l.Resource))
	}
	slices.Sort(out)
	return fmt.Sprintf("live %d, %d connected: %s", h.v.Head.Live[resource.DefaultGateway],
		h.v.Head.Connected[resource.DefaultGateway], strings.Join(out, ", "))
}

// TestReport: what is heard of a server's reports is what its Envoys serve; one that hangs is named, with what it
// lacks, and what all others serve is told; who goes is told with what it served last; and nothing is said where
// nothing is new.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Options{ID: "x", Open: true, Log: zap.NewNop(), Module: func(s string) string { return s }})
		f.Apply(commit(1, gatewayOf(t, 1, 10), routeOf(t, 1, 1, "one")))
		h := &heard{t, f.Reporter(nil, fleet.ReportOptions{}), status.NewView()}
		want := func(what string, news status.News, text string) {
			t.Helper()
			synctest.Wait()
			got := h.look()
			if said := h.says(); got != news || said != text {
				t.Errorf("%s: %s (%d), want %s (%d)", what, said, got, text, news)
			}
		}
		want("without Envoys", status.Urgent, "live 1, 0 connected: ")
		one, two := dial(t, f, "one"), dial(t, f, "two")
		want("two have come", status.Urgent, "live 1, 2 connected: one at 1, two at 1")
		want("and nothing is new", status.Nothing, "live 1, 2 connected: one at 1, two at 1")
		two.hung.Store(true)
		time.Sleep(time.Minute)
		f.Apply(commit(2, routeOf(t, 1, 2, "two")))
		want("one of them hangs", status.Some, "live 1, 2 connected: one at 1, two at 1")
		time.Sleep(time.Second)
		const hangs = "live 1, 2 connected: one at 2, two at 1, two lacks ScopedRouteConfiguration http/host-1.example.com"
		want("for a second", status.Some, hangs)
		if h.v.Head.LaggingProxies != 0 {
			t.Error("that is not long")
		}
		time.Sleep(10 * time.Second)
		h.look()
		if worst, n := f.Lagging(); n != 1 || len(worst) != 1 || worst[0].ID != "two" || h.v.Head.LaggingProxies != 1 {
			t.Errorf("for eleven seconds: %d, %+v", n, worst)
		}
		want("and nothing is new", status.Nothing, hangs)
		one.stop()
		want("the other goes", status.Urgent, "live 1, 1 connected: one gone at 2, two at 1, two lacks "+
			"ScopedRouteConfiguration http/host-1.example.com")
		two.hung.Store(false)
		for _, ack := range two.owed {
			two.in <- ack
		}
		want("it goes on", status.Urgent, "live 2, 1 connected: one gone at 2, two at 2")
		f.Apply(commit(3, resource.Tombstone(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}, 3),
			resource.Tombstone(resource.Ref{Kind: resource.KindRoute, Name: "route-1"}, 3)))
		want("the gateway is deleted", status.Urgent, "live 0, 0 connected: one gone at 2, two gone at 2")
	})
}

// TestReportSaysState: a report has the digest of the state that its revision names, and another state of the same
// revision is news, as it is after an older backup of the database was restored.
func TestReportSaysState(t *testing.T) {
	f := fleet.New(fleet.Options{ID: "x", Open: true, Log: zap.NewNop(), Module: func(s string) string { return s }})
	h := &heard{t, f.Reporter(nil, fleet.ReportOptions{}), status.NewView()}
	for _, hash := range []string{"one", "another"} {
		u := commit(7, gatewayOf(t, 7, 10))
		u.Commit.State = map[string]resource.KindState{resource.KindGateway: {Count: 1, Hash: hash}}
		f.Apply(u)
		if news := h.look(); news != status.Urgent || h.v.Head.Revision != 7 ||
			h.v.Head.State != resource.Digest(u.Commit.State) {
			t.Errorf("%d: %+v", news, h.v.Head)
		}
	}
}

// BenchmarkReport is what looking at and saying one change costs that every Envoy has taken, and how large it is.
func BenchmarkReport(b *testing.B) {
	for _, n := range []int{10, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := fleet.New(fleet.Options{ID: "x", Open: true, Log: zap.NewNop(), Module: func(s string) string { return s }})
			f.Apply(commit(1, gatewayOf(b, 1, 10), routeOf(b, 1, 1, "one")))
			for i := range n {
				dial(b, f, fmt.Sprint("envoy-", i))
			}
			until := func(revision int64) {
				for end := time.Now().Add(time.Minute); f.Proxies() < n || f.Live() != revision; {
					if time.Now().After(end) {
						b.Fatalf("%d of %d Envoys are there, revision %d is live, not %d", f.Proxies(), n, f.Live(), revision)
					}
					time.Sleep(100 * time.Microsecond)
				}
			}
			until(1)
			r := f.Reporter(nil, fleet.ReportOptions{})
			if _, _, err := r.Say(time.Now()); err != nil {
				b.Fatal(err)
			}
			versions := []*resource.Object{routeOf(b, 1, 2, "two"), routeOf(b, 1, 3, "three")}
			size := 0
			b.ReportAllocs()
			revision := int64(1)
			for b.Loop() {
				b.StopTimer()
				revision++
				f.Apply(commit(revision, versions[revision%2]))
				until(revision)
				b.StartTimer()
				r.Look(time.Now())
				pages, s, err := r.Say(time.Now())
				if err != nil || len(pages) > 0 {
					b.Fatal(len(pages), err)
				}
				raw, err := json.Marshal(s)
				if err != nil {
					b.Fatal(err)
				}
				size = len(raw)
			}
			b.ReportMetric(float64(size), "bytes/report")
		})
	}
}
