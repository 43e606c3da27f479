package ads

import (
	"context"
	"fmt"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestEncoded: a response that is put together of shared parts is the one that protobuf would make.
func TestEncoded(t *testing.T) {
	res := func(typ translate.Type, name, text string) *translate.Resource {
		return &translate.Resource{
			Key: translate.Key{Type: typ, Name: name}, Version: "v" + text,
			Body: &anypb.Any{TypeUrl: string(typ), Value: []byte(text)},
		}
	}
	a, b := res(translate.TypeScope, "a", "one"), res(translate.TypeScope, "b", "")
	var c encodings
	for i, r := range []*response{
		{typ: translate.TypeScope, nonce: "1"},
		{typ: translate.TypeScope, nonce: "2", items: []item{
			{name: "a", resource: a},
			{name: "gone"},
			{name: "b", resource: b},
		}},
		{typ: translate.TypeScope, nonce: "3", items: []item{
			{name: "a", resource: a},
			{name: "gone"},
			{name: "b", resource: b},
		}, absent: []string{"never"}},
		{typ: translate.TypeScope, nonce: "4", items: []item{{name: "a", resource: a}}},
		{typ: translate.TypeScope, nonce: "5", items: []item{{name: "gone"}}},
	} {
		raw, err := codec{}.Marshal(r.encoded(&c))
		if err != nil {
			t.Fatal(err)
		}
		var got discoveryv3.DeltaDiscoveryResponse
		if err := proto.Unmarshal(raw.Materialize(), &got); err != nil {
			t.Fatal(err)
		}
		if want := r.message(); !proto.Equal(&got, want) {
			t.Errorf("%d: %v, want %v", i, &got, want)
		}
	}
	one := c.resources([]item{{name: "a", resource: a}})
	again := c.resources([]item{{name: "a", resource: a}})
	if &one[0] != &again[0] {
		t.Error("the same resources were marshalled twice")
	}
}

// fake is an Envoy's end that accepts everything at once.
type fake struct {
	grpc.ServerStream
	ctx context.Context
	in  chan *discoveryv3.DeltaDiscoveryRequest
}

func (f *fake) Context() context.Context { return f.ctx }

func (f *fake) Send(r *discoveryv3.DeltaDiscoveryResponse) error {
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	f.in <- req
	if r.GetTypeUrl() == string(translate.TypeCluster) && len(r.GetResources()) > 0 {
		names := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(translate.TypeEndpoint)}
		for _, x := range r.GetResources() {
			names.ResourceNamesSubscribe = append(names.ResourceNamesSubscribe, x.GetName())
		}
		f.in <- names
	}
	return nil
}

func (f *fake) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	select {
	case r := <-f.in:
		return r, nil
	case <-f.ctx.Done():
		return nil, f.ctx.Err()
	}
}

// many is a configuration of that many hosts, a tenth as many services.
func many(n int, mark string) translate.Delta {
	var d translate.Delta
	add := func(t translate.Type, name string, clusters ...string) {
		d.Upserts = append(d.Upserts, &translate.Resource{
			Key: translate.Key{Type: t, Name: name}, Version: mark, Clusters: clusters, Body: &anypb.Any{
				TypeUrl: string(t),
				Value:   []byte(mark),
			},
		})
	}
	for i := range n / 10 {
		add(translate.TypeCluster, fmt.Sprint("s", i))
		add(translate.TypeEndpoint, fmt.Sprint("s", i))
	}
	add(translate.TypeListener, "http")
	for i := range n {
		add(translate.TypeScope, fmt.Sprint("http/", i), fmt.Sprint("s", i/10))
	}
	return d
}

func connectFake(
	g *Gateway, id int, said map[translate.Type]map[string]string,
) (*deltaStream, chan error, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fake{ctx: ctx, in: make(chan *discoveryv3.DeltaDiscoveryRequest, 64)}
	s := newStream(g, f, cancel, time.Now())
	s.id = fmt.Sprint(id)
	done := make(chan error, 1)
	for _, t := range []translate.Type{translate.TypeListener, translate.TypeScope} {
		f.in <- &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(t), InitialResourceVersions: said[t]}
	}
	go func() {
		done <- s.run(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl:                 string(translate.TypeCluster),
			InitialResourceVersions: said[translate.TypeCluster],
		})
	}()
	return s, done, cancel
}

// TestNothingIsKept: of an Envoy that has everything a stream keeps nothing but what it has asked for, whatever there
// is; and when everybody has gone, nothing of the streams is left.
func TestNothingIsKept(t *testing.T) {
	changed := make(chan struct{}, 1)
	g := NewGateway("default", Options{Log: zap.NewNop(), OnChange: func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}})
	g.Apply(1, many(1000, "1"))
	await := func(revision int64, streams int) {
		for len(g.Proxies()) != streams || g.Live() != revision {
			<-changed
		}
	}
	var all []*deltaStream
	var ends []context.CancelFunc
	var dones []chan error
	for i := range 40 { // more than get a turn at once
		s, done, cancel := connectFake(g, i, nil)
		all, ends, dones = append(all, s), append(ends, cancel), append(dones, done)
	}
	await(1, 40)
	g.Apply(2, many(1000, "2"))
	await(2, 40)
	g.Apply(3, translate.Delta{Upserts: many(10, "3").Upserts})
	await(3, 40)
	g.mu.Lock()
	for _, s := range all {
		for typ, ts := range s.plan.types {
			if len(ts.records) > 0 || len(ts.inflight) > 0 || len(ts.queue) > 0 {
				t.Errorf("%s: %d records, %d in flight, %d queued", ShortType(typ), len(ts.records), len(ts.inflight),
					len(ts.queue))
			}
		}
		p := s.plan
		if len(p.uses)+len(p.awaitCluster)+len(p.awaitFilters)+len(p.unused) > 0 || p.perRoute != (settingCounts{}) || p.unknownUses != 0 {
			t.Errorf("uses %v awaited %v per route %v", p.uses, p.awaitCluster, p.perRoute)
		}
	}
	g.mu.Unlock()
	for i, end := range ends {
		end()
		if err := <-dones[i]; err == nil {
			t.Error("a stream ended without being cut")
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for typ, tt := range g.table.types {
		for name, e := range tt.byName {
			if e.refs != 0 {
				t.Errorf("%s %s has %d references", ShortType(typ), name, e.refs)
			}
		}
	}
	if len(g.catchUp.active)+len(g.catchUp.waiting) > 0 {
		t.Error("a turn was not given back")
	}
}

const clients = 100

// BenchmarkChange is one change until many Envoys of 10,000 hosts have it, their own work aside.
func BenchmarkChange(b *testing.B) {
	changed := make(chan struct{}, 1)
	g := NewGateway("default", Options{Log: zap.NewNop(), OnChange: func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}})
	g.Apply(1, many(10000, "1"))
	for i := range clients {
		_, _, cancel := connectFake(g, i, nil)
		defer cancel()
	}
	revision := int64(1)
	await := func() {
		for len(g.Proxies()) != clients || g.Live() != revision {
			<-changed
		}
	}
	await()
	b.ResetTimer()
	for range b.N {
		revision++
		g.Apply(revision, translate.Delta{Upserts: many(10, fmt.Sprint(revision)).Upserts[2:4]})
		await()
	}
}
