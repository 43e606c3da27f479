package e2e

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	routeservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/harness"
)

func dial(t *testing.T, s *harness.System) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestStateOfTheWorld: a client of the route service alone gets a listener's table by its name, is told of
// changes, and is not sent again what it refused.
func TestStateOfTheWorld(t *testing.T) {
	s := start(t, "--no-demo")
	put(t, s, "a", "one")
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, s)
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-api-key", key), 20*time.Second)
	defer cancel()
	rds, err := routeservicev3.NewRouteDiscoveryServiceClient(conn).StreamRoutes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	node := &corev3.Node{Id: "other", Cluster: "default"}
	if err := rds.Send(&discoveryv3.DiscoveryRequest{
		Node: node, TypeUrl: string(translate.TypeRoute),
		ResourceNames: []string{"http"},
	}); err != nil {
		t.Fatal(err)
	}
	body := func() (*discoveryv3.DiscoveryResponse, string) {
		t.Helper()
		resp, err := rds.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var table routev3.RouteConfiguration
		if err := resp.GetResources()[0].UnmarshalTo(&table); err != nil {
			t.Fatal(err)
		}
		for _, v := range table.GetVirtualHosts() {
			if v.GetDomains()[0] == "a.example.com" {
				// The first refuses TRACE.
				return resp, v.GetRoutes()[1].GetDirectResponse().GetBody().GetInlineString()
			}
		}
		t.Fatalf("no host a.example.com in %v", &table)
		return nil, ""
	}
	resp, got := body()
	if got != "one" {
		t.Fatalf("first table says %q", got)
	}
	// A refusal is not answered with the same again; the next change is sent.
	if err := rds.Send(&discoveryv3.DiscoveryRequest{
		TypeUrl: resp.GetTypeUrl(), ResourceNames: []string{"http"},
		ResponseNonce: resp.GetNonce(), ErrorDetail: &status.Status{Code: 3, Message: "no"},
	}); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "two")
	resp2, got := body()
	if got != "two" || resp2.GetVersionInfo() == resp.GetVersionInfo() {
		t.Fatalf("after a refusal and a change the table says %q, version %s after %s", got, resp2.GetVersionInfo(),
			resp.GetVersionInfo())
	}
}

// TestClusterKey: a key opens its own gateway, and nothing opens without one.
func TestClusterKey(t *testing.T) {
	s := start(t, "--no-demo")
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	call(t, s, "PUT", s.API+"/v1/gateways/closed", map[string]any{"spec": map[string]any{
		"listeners": []any{map[string]any{"name": "http", "port": 1}},
		"api_keys":  []any{map[string]any{"name": "k", "key": "another-key-of-16-characters"}},
	}}, 201)
	conn := dial(t, s)
	for _, c := range []struct {
		gateway, key string
		want         codes.Code
	}{
		{"default", "", codes.PermissionDenied},
		{"default", "wrong", codes.PermissionDenied},
		{"default", key, codes.OK},
		{"closed", key, codes.PermissionDenied},
		{"nobody", key, codes.PermissionDenied},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if c.key != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-api-key", c.key)
		}
		st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(&discoveryv3.DiscoveryRequest{
			Node:    &corev3.Node{Id: "x", Cluster: c.gateway},
			TypeUrl: string(translate.TypeListener),
		}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err) // EOF: refused before it was read, and Recv says why
		}
		_, err = st.Recv()
		cancel()
		if got := grpcstatus.Code(err); got != c.want {
			t.Errorf("gateway %s with key %.5q: %v, want %v", c.gateway, c.key, got, c.want)
		}
	}
}
