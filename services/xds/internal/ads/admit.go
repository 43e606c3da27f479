package ads

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/marchproxy/marchproxy/pkg/clusterkey"
	"github.com/marchproxy/marchproxy/pkg/identity"
)

// client is a stream, of an Envoy or of another client, with what opened it.
type client struct {
	g   *Gateway
	ctx context.Context
	end context.CancelCauseFunc
	key string // its SHA-256; "" where none was sent
	// peer is the connection's other end; nil where certificates are not asked for.
	peer *peerInfo
}

// KeyOf is the key in a stream's metadata, and its SHA-256 in hexadecimal; "" both where none was sent.
func KeyOf(ctx context.Context) (key, sum string) {
	if v := metadata.ValueFromIncomingContext(ctx, KeyHeader); len(v) > 0 {
		return v[0], clusterkey.Sum(v[0])
	}
	return "", ""
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
	sent, key := KeyOf(ctx)
	if g == nil || sent != "" && clusterkey.Check(sent) != nil {
		return nil, closed(name)
	}
	c := &client{g: g, key: key}
	if s.Check != nil {
		p, ok := peer.FromContext(ctx)
		if !ok {
			return nil, status.Error(codes.Unauthenticated, "there is no connection")
		}
		if c.peer, ok = p.AuthInfo.(*peerInfo); !ok {
			return nil, status.Error(codes.Unauthenticated, "a client's certificate is needed")
		}
	}
	c.ctx, c.end = context.WithCancelCause(ctx)
	// It is known before its key is looked at: a key that is taken away meanwhile either does not open the gateway, or
	// ends the stream.
	g.clients.Store(c, struct{}{})
	if !s.dir.Admit(name, key) {
		c.leave()
		return nil, closed(name)
	}
	if c.peer != nil {
		chain := c.peer.State.PeerCertificates
		err := s.Check(chain)
		if err == nil {
			err = identity.Opens(chain[0], name)
		}
		if err != nil {
			c.leave()
			return nil, status.Error(codes.PermissionDenied, err.Error())
		}
	}
	return c, nil
}

// closed is said of an unknown gateway and of a wrong key: who has no key learns nothing of which gateways there are.
func closed(gateway string) error {
	return status.Errorf(codes.PermissionDenied, "no gateway %q is open to this key; check node.cluster and "+
		"CLUSTER_API_KEY (sent as %s)", gateway, KeyHeader)
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

// ReviewPeers ends the connections whose certificates are not good any more. A stream that ended alone would begin
// again on its connection, with the same certificate: an Envoy shows a new one when it connects.
func (g *Gateway) ReviewPeers(check func(chain []*x509.Certificate) error) {
	for k := range g.clients.Range {
		c := k.(*client)
		if c.peer == nil {
			continue
		}
		if err := check(c.peer.State.PeerCertificates); err != nil {
			g.opt.Log.Warn("a client's certificate is not good any more; its connection ends", zap.String("gateway", g.name),
				zap.Error(err))
			c.end(err)
			_ = c.peer.conn.Close() // it may be gone
		}
	}
}

// peerInfo is what is known of the other end of a connection.
type peerInfo struct {
	credentials.TLSInfo
	conn net.Conn
}

// withPeer are gRPC's credentials with the connection in what they know.
type withPeer struct {
	credentials.TransportCredentials
}

// Credentials are a TLS configuration's, for a server that may have to end a connection for its certificate.
func Credentials(c *tls.Config) credentials.TransportCredentials {
	return withPeer{credentials.NewTLS(c)}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (w withPeer) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ServerHandshake(raw)
	if t, ok := info.(credentials.TLSInfo); ok {
		info = &peerInfo{t, raw}
	}
	return conn, info, err
}

// Clone implements [credentials.TransportCredentials].
func (w withPeer) Clone() credentials.TransportCredentials {
	return withPeer{w.TransportCredentials.Clone()}
}

// Close ends every stream; the Envoys keep what they have.
func (g *Gateway) Close() {
	for k := range g.clients.Range {
		k.(*client).end(errClosed)
	}
}
