package fleet_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
)

// stored is an object as it comes from the event stream.
func stored(tb testing.TB, kind, name string, revision int64, m proto.Message) *resource.Object {
	tb.Helper()
	spec, err := resource.CanonicalSpec(m)
	if err != nil {
		tb.Fatal(err)
	}
	o, err := resource.ParsePayload((&resource.Object{Kind: kind, Name: name, Revision: revision, Spec: spec}).Payload())
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func gatewayOf(tb testing.TB, revision int64, maxConnections uint32) *resource.Object {
	return stored(tb, resource.KindGateway, resource.DefaultGateway, revision, &configv1.Gateway{
		Listeners:     []*configv1.Listener{{Name: "http", Port: 10000}},
		Limits:        &configv1.Limits{MaxConnections: maxConnections},
		MetricsEngine: configv1.Gateway_wasm, // whose file is asked for at each build
	})
}

func routeOf(tb testing.TB, i int, revision int64, body string) *resource.Object {
	return stored(tb, resource.KindRoute, fmt.Sprintf("route-%d", i), revision, &configv1.Route{
		Hosts: []string{fmt.Sprintf("host-%d.example.com", i)}, DirectResponse: &configv1.DirectResponse{
			Status: 200,
			Body:   body,
		},
	})
}

func commit(revision int64, changed ...*resource.Object) resource.Update {
	return resource.Update{Commit: resource.Commit{Epoch: "e", Revision: revision}, Changed: changed}
}

// TestBuiltOnce: a gateway that comes with the configuration is built once, not once anew and once for each change that
// came with it.
func TestBuiltOnce(t *testing.T) {
	var built atomic.Int32
	f := fleet.New(fleet.Options{ID: "x", Open: true, Log: zap.NewNop(), Module: func(filter string) string {
		if filter == "metrics" { // once a build
			built.Add(1)
		}
		return filter
	}})
	for revision := range int64(3) {
		f.Apply(commit(revision+1, gatewayOf(t, revision+1, uint32(revision)), routeOf(t, 1, revision+1, "x")))
		if n := built.Load(); n != int32(revision)+1 {
			t.Errorf("after %d changes the gateway has been built %d times", revision+1, n)
		}
	}
}

// TestNobodyWaitsForABuild: while something is built, which takes seconds for many routes, an Envoy that connects, a
// report and the HTTP door are answered, of what was there before; an Envoy of a gateway that is not built yet is told
// to try again.
func TestNobodyWaitsForABuild(t *testing.T) {
	building, goOn := make(chan struct{}), make(chan struct{})
	f := fleet.New(fleet.Options{ID: "x", Open: true, Log: zap.NewNop(), Module: func(filter string) string {
		if filter == "metrics" { // once a build
			building <- struct{}{}
			<-goOn
		}
		return filter
	}})
	report := f.Reporter(nil, fleet.ReportOptions{})
	for revision := range int64(2) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.Apply(commit(revision+1, gatewayOf(t, revision+1, uint32(revision))))
		}()
		<-building
		read := make(chan struct{})
		go func() {
			defer close(read)
			c, ready := f.Head()
			g, same := f.Gateway(resource.DefaultGateway)
			if before := revision > 0; ready != before || same != before || (g != nil) != before ||
				f.Admit(resource.DefaultGateway, "") != before {
				t.Errorf("while revision %d is built: ready %v and %v, gateway %v", revision+1, ready, same, g != nil)
			}
			report.Look(time.Now())
			if _, s, err := report.Say(time.Now()); err != nil || c.Revision != revision || s.Revision != revision {
				t.Errorf("while revision %d is built the head is %d, and reported %d (%v)", revision+1, c.Revision, s.Revision, err)
			}
			f.Names(time.Now())
			if f.Object(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}) == nil ||
				len(f.Summary()) != 1 {
				t.Error("what is being built is not in the state")
			}
		}()
		select {
		case <-read:
		case <-time.After(10 * time.Second):
			t.Error("readers wait for the build")
		}
		goOn <- struct{}{}
		<-done
		if c, ready := f.Head(); !ready || c.Revision != revision+1 {
			t.Errorf("after revision %d: ready %v, at %d", revision+1, ready, c.Revision)
		}
	}
}

func crowd(b *testing.B, hosts int) []*resource.Object {
	out := []*resource.Object{gatewayOf(b, 1, 0)}
	for i := range hosts {
		out = append(out, routeOf(b, i, 1, "x"))
	}
	return out
}

func BenchmarkChange(b *testing.B) {
	for _, hosts := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			f := fleet.New(fleet.Options{ID: "x", Open: true, Log: zap.NewNop()})
			f.Apply(commit(1, crowd(b, hosts)...))
			versions := [2]*resource.Object{routeOf(b, 7, 2, "a"), routeOf(b, 7, 3, "b")}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f.Apply(commit(int64(i+2), versions[i%2]))
			}
		})
	}
}

// BenchmarkStart is the first update of a server, or of a new gateway with everything that it serves.
func BenchmarkStart(b *testing.B) {
	for _, hosts := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			objects := crowd(b, hosts)
			b.ReportAllocs()
			for b.Loop() {
				f := fleet.New(fleet.Options{ID: "x", Open: true, Log: zap.NewNop()})
				f.Apply(commit(1, objects...))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(hosts), "µs/host")
		})
	}
}
