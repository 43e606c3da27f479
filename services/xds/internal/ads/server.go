package ads

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/peer"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/locality"
)

// KeyHeader is the gRPC metadata that carries the cluster API key.
const KeyHeader = "x-api-key"

// Directory finds the gateway that an Envoy belongs to.
type Directory interface {
	// Gateway finds a gateway by name; nil where there is none. Ready is false until the configuration has
	// been read for the first time.
	Gateway(name string) (g *Gateway, ready bool)
	// Admit says whether a key (its SHA-256 in hexadecimal; "" for none sent) opens a gateway. Who makes its answer
	// another one calls [Gateway.Review] after it.
	Admit(gateway, sha256hex string) bool
}

// Server serves Envoys by the delta variant of the aggregated discovery service, and others by the state of the world
// as well ([Server.Register]).
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	dir Directory
	// Check, where it is set, says what is wrong with a client's certificate: each must have one then.
	Check func(chain []*x509.Certificate) error
	// raw says that streams are those of gRPC.
	raw bool
}

// NewServer returns a server; register it with discoveryv3.RegisterAggregatedDiscoveryServiceServer.
func NewServer(dir Directory) *Server { return &Server{dir: dir} }

// DeltaAggregatedResources serves one Envoy until it or the gateway goes.
func (s *Server) DeltaAggregatedResources(
	conn discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	first, err := conn.Recv()
	if err != nil {
		return err
	}
	c, err := s.admit(conn.Context(), first.GetNode())
	if err != nil {
		return err
	}
	defer c.leave()
	g, ctx := c.g, c.ctx
	st := newStream(g, withContext{conn, ctx}, func() { c.end(nil) }, time.Now())
	st.raw = s.raw
	st.id = first.GetNode().GetId()
	st.version = envoyVersion(first.GetNode())
	st.readNode(first.GetNode())
	if p, ok := peer.FromContext(ctx); ok {
		st.address = p.Addr.String()
	}
	return c.why(st.run(first))
}

type withContext struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	ctx context.Context
}

// Context is the stream's own, or what it was replaced with.
func (w withContext) Context() context.Context { return w.ctx }

// readNode takes what the bootstrap says of an Envoy.
func (s *deltaStream) readNode(n *corev3.Node) {
	s.plan.place = locality.FromEnvoy(n.GetLocality())
	said := n.GetMetadata().GetFields()[bootstrap.MetadataSpace].GetStructValue().GetFields()
	s.drain = time.Duration(said[bootstrap.MetadataDrain].GetNumberValue()) * time.Second
	s.plan.runtime, s.plan.emptyFilters = said[bootstrap.MetadataRuntime].GetBoolValue(),
		said[bootstrap.MetadataPlaces].GetBoolValue()
	s.plan.logFile = said[bootstrap.MetadataLogFile].GetBoolValue()
}

func envoyVersion(n *corev3.Node) string {
	if v := n.GetUserAgentBuildVersion().GetVersion(); v != nil {
		return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	}
	return n.GetUserAgentVersion()
}
