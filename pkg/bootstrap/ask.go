package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// RuntimeDrain is the key of [RuntimeLayer] that has the gateway's drain time, in seconds.
const RuntimeDrain = "marchproxy.drain_time_s"

// AskDrainTime asks the xDS server for the drain time of the gateway, which Envoy takes on its command line: a
// client of the state of the world that reads the gateway's runtime once. It waits for a server that cannot be
// reached, or that has not read its configuration yet, until the context ends.
func AskDrainTime(ctx context.Context, c Config) (time.Duration, error) {
	way := insecure.NewCredentials()
	if c.TLS != nil {
		host, _, err := net.SplitHostPort(c.XDSServer)
		if err != nil {
			return 0, fmt.Errorf("XDS_SERVER: %w", err)
		}
		way = credentials.NewTLS(c.TLS.Identity.Client(host))
	}
	conn, err := grpc.NewClient("passthrough:///"+c.XDSServer, grpc.WithNoProxy(), grpc.WithTransportCredentials(way))
	if err != nil {
		return 0, fmt.Errorf("XDS_SERVER: %w", err)
	}
	defer func() { _ = conn.Close() }() // it was only to ask
	if c.APIKey != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-api-key", c.APIKey)
	}
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
	for {
		d, err := ask(ctx, client, c)
		if status.Code(err) != codes.Unavailable {
			return d, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return 0, err
		}
	}
}

func ask(ctx context.Context, client discoveryv3.AggregatedDiscoveryServiceClient, c Config) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	s, err := client.StreamAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		return 0, err
	}
	if err := s.Send(&discoveryv3.DiscoveryRequest{
		Node:    &corev3.Node{Id: c.NodeID, Cluster: c.Gateway},
		TypeUrl: "type.googleapis.com/envoy.service.runtime.v3.Runtime", ResourceNames: []string{RuntimeLayer},
	}); err != nil && !errors.Is(err, io.EOF) { // why it ended is what Recv returns
		return 0, err
	}
	answer, err := s.Recv()
	if err != nil {
		return 0, err
	}
	var layer runtimev3.Runtime
	for _, r := range answer.GetResources() {
		if err := r.UnmarshalTo(&layer); err != nil {
			return 0, err
		}
	}
	if n := layer.GetLayer().GetFields()[RuntimeDrain].GetNumberValue(); n >= 1 {
		return time.Duration(n) * time.Second, nil
	}
	return 0, errors.New("the xDS server does not know the gateway's drain time")
}
