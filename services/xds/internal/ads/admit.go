package ads

import (
	"context"
	"errors"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/marchproxy/marchproxy/pkg/clusterkey"
)

// client is a stream, of an Envoy or of another client, with what opened it.
type client struct {
	g   *Gateway
	ctx context.Context
	end context.CancelCauseFunc
	key string // its SHA-256; "" where none was sent
}

// errClosed ends the streams of a gateway that is no longer served.
var errClosed = errors.New("the gateway is closed")

// errKeyTaken ends the streams of a key that was taken away.
var errKeyTaken = errors.New("the key was taken away")

// admit finds the gateway that a node belongs to (node.cluster; "default" where empty), and lets the stream in where
// the key in its metadata opens that.
func (s *Server) admit(ctx context.Context, node *corev3.Node) (*client, error) {
	name := node.GetCluster()
	if name == "" {
		name = "default"
	}
	g, ready := s.dir.Gateway(name)
	if !ready {
		return nil, status.Error(codes.Unavailable, "the configuration has not been read yet; try again")
	}
	key, sent := "", ""
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get(KeyHeader); len(v) > 0 {
			sent, key = v[0], clusterkey.Sum(v[0])
		}
	}
	if g == nil || sent != "" && clusterkey.Check(sent) != nil {
		return nil, closed(name)
	}
	c := &client{g: g, key: key}
	c.ctx, c.end = context.WithCancelCause(ctx)
	// It is known before its key is looked at: a key that is taken away meanwhile either does not open the gateway, or
	// ends the stream.
	g.clients.Store(c, struct{}{})
	if !s.dir.Admit(name, key) {
		c.leave()
		return nil, closed(name)
	}
	return c, nil
}

// closed is said of an unknown gateway and of a wrong key: who has no key learns nothing of which gateways there are.
func closed(gateway string) error {
	return status.Errorf(codes.PermissionDenied, "no gateway %q is open to this key; check node.cluster and CLUSTER_API_KEY (sent as %s)", gateway, KeyHeader)
}

func (c *client) leave() {
	c.g.clients.Delete(c)
	c.end(nil)
}

// why is how the stream ended, to its other end: err, unless this server ended it.
func (c *client) why(err error) error {
	switch cause := context.Cause(c.ctx); {
	case errors.Is(cause, errKeyTaken):
		return closed(c.g.name)
	case errors.Is(cause, errClosed):
		return status.Errorf(codes.Unavailable, "gateway %q is no longer served here", c.g.name)
	}
	return err
}

// Review ends the streams whose keys do not open the gateway any more.
func (g *Gateway) Review(admit func(sha256hex string) bool) {
	for k := range g.clients.Range {
		if c := k.(*client); !admit(c.key) {
			c.end(errKeyTaken)
		}
	}
}

// Close ends every stream; the Envoys keep what they have.
func (g *Gateway) Close() {
	for k := range g.clients.Range {
		k.(*client).end(errClosed)
	}
}
