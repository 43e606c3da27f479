package ads

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
)

// KeyHeader is the gRPC metadata that carries the cluster API key.
const KeyHeader = "x-api-key"

// Directory finds the gateway that an Envoy belongs to.
type Directory interface {
	// Gateway finds a gateway by name; nil where there is none. Ready is false until the configuration has
	// been read for the first time.
	Gateway(name string) (g *Gateway, ready bool)
	// Admit says whether a key (its SHA-256 in hexadecimal; "" for none sent) opens a gateway.
	Admit(gateway, sha256hex string) bool
}

// Server is the aggregated discovery service, delta variant.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	dir Directory
	// raw says that streams are those of gRPC.
	raw bool
}

// NewServer returns a server; register it with discoveryv3.RegisterAggregatedDiscoveryServiceServer.
func NewServer(dir Directory) *Server { return &Server{dir: dir} }

// DeltaAggregatedResources serves one Envoy until it or the gateway goes.
func (s *Server) DeltaAggregatedResources(conn discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	first, err := conn.Recv()
	if err != nil {
		return err
	}
	g, err := Admit(conn.Context(), s.dir, first.GetNode())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(conn.Context())
	st := newStream(g, withContext{conn, ctx}, cancel, time.Now())
	st.raw = s.raw
	st.id = first.GetNode().GetId()
	st.version = envoyVersion(first.GetNode())
	st.told(first.GetNode())
	if p, ok := peer.FromContext(ctx); ok {
		st.address = p.Addr.String()
	}
	err = st.run(first)
	if ctx.Err() != nil && conn.Context().Err() == nil {
		return status.Errorf(codes.Unavailable, "gateway %q is no longer served here", g.name)
	}
	return err
}

type withContext struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	ctx context.Context
}

// Context is the stream's own, or what it was replaced with.
func (w withContext) Context() context.Context { return w.ctx }

// Admit finds the gateway that a node belongs to (node.cluster; "default" where empty) and checks the
// key in the stream's metadata.
func Admit(ctx context.Context, dir Directory, node *corev3.Node) (*Gateway, error) {
	name := node.GetCluster()
	if name == "" {
		name = "default"
	}
	g, ready := dir.Gateway(name)
	if !ready {
		return nil, status.Error(codes.Unavailable, "the configuration has not been read yet; try again")
	}
	key := ""
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get(KeyHeader); len(v) > 0 {
			sum := sha256.Sum256([]byte(v[0]))
			key = hex.EncodeToString(sum[:])
		}
	}
	// An unknown gateway and a wrong key look the same to who has no key.
	if g == nil || !dir.Admit(name, key) {
		return nil, status.Errorf(codes.PermissionDenied, "no gateway %q is open to this key; check node.cluster and CLUSTER_API_KEY (sent as %s)", name, KeyHeader)
	}
	return g, nil
}

// told takes what the bootstrap says of an Envoy.
func (s *stream) told(n *corev3.Node) {
	said := n.GetMetadata().GetFields()[bootstrap.MetadataSpace].GetStructValue().GetFields()
	s.drain = time.Duration(said[bootstrap.MetadataDrain].GetNumberValue()) * time.Second
	s.runtime, s.places = said[bootstrap.MetadataRuntime].GetBoolValue(), said[bootstrap.MetadataPlaces].GetBoolValue()
}

func envoyVersion(n *corev3.Node) string {
	if v := n.GetUserAgentBuildVersion().GetVersion(); v != nil {
		return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	}
	return n.GetUserAgentVersion()
}
