package ads_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/marchproxy/marchproxy/pkg/clusterkey"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
)

// locked is a directory of one gateway with keys.
type locked struct {
	g    *ads.Gateway
	mu   sync.Mutex
	keys map[string]bool
}

func (l *locked) Gateway(name string) (*ads.Gateway, bool) {
	if name == "default" {
		return l.g, true
	}
	return nil, true
}

func (l *locked) Admit(_, sum string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys[sum]
}

func (l *locked) take(key string) {
	l.mu.Lock()
	delete(l.keys, clusterkey.Sum(key))
	l.mu.Unlock()
	l.g.Review(func(sum string) bool { return l.Admit("", sum) })
}

// silent is a client that says who it is and nothing more; Q and R are the messages of either protocol.
type silent[Q, R any] struct {
	grpc.ServerStream
	ctx   context.Context
	first chan Q
}

func (s *silent[Q, R]) Context() context.Context { return s.ctx }
func (s *silent[Q, R]) Send(R) error             { return nil }
func (s *silent[Q, R]) SendMsg(any) error        { return nil }
func (s *silent[Q, R]) Recv() (q Q, err error) {
	select {
	case q = <-s.first:
		return q, nil
	case <-s.ctx.Done():
		return q, s.ctx.Err()
	}
}

func silentClient[Q, R any](ctx context.Context, key string, first Q) *silent[Q, R] {
	s := &silent[Q, R]{ctx: metadata.NewIncomingContext(ctx, metadata.Pairs(ads.KeyHeader, key)), first: make(chan Q, 1)}
	s.first <- first
	return s
}

// TestKeys: a key opens its gateway's streams, of both protocols; when it is taken away they end at once, with the
// words that a wrong key gets, and those of other keys go on.
func TestKeys(t *testing.T) {
	const old, other, short = "the-old-key-of-an-envoy", "another-key-of-an-envoy", "fifteen-letters"
	l := &locked{g: newGateway(), keys: map[string]bool{}}
	for _, k := range []string{old, other, short} {
		l.keys[clusterkey.Sum(k)] = true
	}
	server := ads.NewServer(l)
	open := func(key, gateway string) [2]chan error {
		out := [2]chan error{make(chan error, 1), make(chan error, 1)}
		node := &corev3.Node{Cluster: gateway}
		go func() {
			out[0] <- server.DeltaAggregatedResources(
				silentClient[*discoveryv3.DeltaDiscoveryRequest, *discoveryv3.DeltaDiscoveryResponse](
					t.Context(), key, &discoveryv3.DeltaDiscoveryRequest{Node: node}),
			)
		}()
		go func() {
			out[1] <- server.StreamAggregatedResources(
				silentClient[*discoveryv3.DiscoveryRequest, *discoveryv3.DiscoveryResponse](
					t.Context(), key, &discoveryv3.DiscoveryRequest{Node: node}),
			)
		}()
		return out
	}
	refused := func(what string, ends [2]chan error) {
		t.Helper()
		for i, end := range ends {
			select {
			case err := <-end:
				if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "is open to this key") {
					t.Errorf("%s, %d: %v", what, i, err)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s, %d: the stream goes on", what, i)
			}
		}
	}
	refused("another gateway", open(old, "edge"))
	refused("no key", open("", ""))
	refused("a short key, though its hash is there", open(short, ""))
	olds, others := open(old, ""), open(other, "")
	for end := time.Now().Add(10 * time.Second); l.g.Count() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of 2 streams with the other keys are there", l.g.Count())
		}
	}
	l.take(old)
	refused("a key that was taken away", olds)
	refused("it comes again", open(old, ""))
	for i, end := range others {
		select {
		case err := <-end:
			t.Errorf("the other key's stream %d ended: %v", i, err)
		default:
		}
	}
	l.g.Close()
	for i, end := range others {
		if err := <-end; status.Code(err) != codes.Unavailable {
			t.Errorf("a gateway that is gone says %v to stream %d", err, i)
		}
	}
}
