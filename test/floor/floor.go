// Package floor measures what Envoy alone needs to make one routing change live: the smallest delta
// ADS server that works, with every response marshalled before the clock starts. What MarchProxy adds
// is measured against it, in the same run.
package floor

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// Server sends what it is given to one Envoy, and nothing else.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	grpc *grpc.Server
	addr string

	mu     sync.Mutex // guards what follows
	res    map[translate.Type]map[string]*translate.Resource
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	nonce  int

	send sync.Mutex
	acks chan Ack
}

// Ack is Envoy's answer to a response.
type Ack struct {
	Nonce, Err string
}

// NewServer listens on a free loopback port.
func NewServer(resources []*translate.Resource) (*Server, error) {
	lis, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	s := &Server{
		grpc: grpc.NewServer(grpc.MaxSendMsgSize(256<<20), grpc.MaxRecvMsgSize(256<<20)),
		addr: lis.Addr().String(), res: map[translate.Type]map[string]*translate.Resource{}, acks: make(chan Ack, 1<<16),
	}
	for _, r := range resources {
		if s.res[r.Type] == nil {
			s.res[r.Type] = map[string]*translate.Resource{}
		}
		s.res[r.Type][r.Name] = r
	}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s.grpc, s)
	go func() { _ = s.grpc.Serve(lis) }() // ends with Close
	return s, nil
}

// Addr is where Envoy connects.
func (s *Server) Addr() string { return s.addr }

// Close ends it.
func (s *Server) Close() { s.grpc.Stop() }

// Acks are Envoy's answers.
func (s *Server) Acks() <-chan Ack { return s.acks }

// Push sends one resource.
func (s *Server) Push(r *translate.Resource) (nonce string, err error) {
	return s.push(r.Type, []*discoveryv3.Resource{{Name: r.Name, Version: r.Version, Resource: r.Body}})
}

func (s *Server) push(t translate.Type, res []*discoveryv3.Resource) (string, error) {
	s.mu.Lock()
	s.nonce++
	nonce, stream := strconv.Itoa(s.nonce), s.stream
	s.mu.Unlock()
	s.send.Lock()
	defer s.send.Unlock()
	return nonce, stream.Send(&discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: string(t), Nonce: nonce,
		SystemVersionInfo: nonce, Resources: res,
	})
}

// DeltaAggregatedResources answers every subscription with all that it asks for.
func (s *Server) DeltaAggregatedResources(
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	s.mu.Lock()
	s.stream = stream
	s.mu.Unlock()
	seen := map[string]bool{}
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if r.GetResponseNonce() != "" {
			s.acks <- Ack{r.GetResponseNonce(), r.GetErrorDetail().GetMessage()}
		}
		first := !seen[r.GetTypeUrl()]
		seen[r.GetTypeUrl()] = true
		if !first && len(r.GetResourceNamesSubscribe()) == 0 {
			continue
		}
		t := translate.Type(r.GetTypeUrl())
		var out []*discoveryv3.Resource
		add := func(x *translate.Resource) {
			out = append(out, &discoveryv3.Resource{Name: x.Name, Version: x.Version, Resource: x.Body})
		}
		// Who names nothing follows everything of a type. Filters are named one by one, as endpoints are; a listener
		// whose filter does not come waits for it for a quarter of a minute.
		names := r.GetResourceNamesSubscribe()
		for _, n := range names {
			if x := s.res[t][n]; x != nil {
				add(x)
			}
		}
		if len(names) == 0 || slices.Contains(names, "*") {
			for _, x := range s.res[t] {
				add(x)
			}
		}
		if _, err := s.push(t, out); err != nil {
			return err
		}
	}
}
