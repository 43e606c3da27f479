package server

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/marchproxy/marchproxy/pkg/guard"
	"github.com/marchproxy/marchproxy/pkg/rpc"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
)

// What clients may cost before they have shown who they are.
const (
	// unprovenGRPC and unprovenHTTP are how many connections of theirs there may be. One of gRPC takes some 40 KB.
	unprovenGRPC = 4096
	unprovenHTTP = 2048
	// firstMessage is how long an Envoy may take from its connection to its first request, TLS included.
	firstMessage = 15 * time.Second
	// maxHeaders is the size of a stream's metadata, in bytes: a key, and what gRPC adds.
	maxHeaders = 16 << 10
	// maxStreams is how many streams a connection may have: an Envoy has one, other clients one of each type.
	maxStreams = 100
)

// envoys is what stands before the xDS service.
type envoys struct {
	fleet    *fleet.Fleet
	attempts *guard.Attempts
	proven   func(remote string)
}

// admit refuses a stream before anything of it is read, unless its key opens some gateway. Which one it asks for is in
// its first message, which is much where an Envoy says what it has.
func (e *envoys) admit(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if _, ready := e.fleet.Head(); !ready {
		return status.Error(codes.Unavailable, "the configuration has not been read yet; try again")
	}
	key, sum := ads.KeyOf(s.Context())
	remote := ""
	if p, ok := peer.FromContext(s.Context()); ok {
		remote = p.Addr.String()
	}
	if wait, look := e.attempts.Look(remote, key); !look {
		return status.Errorf(codes.PermissionDenied, "too many wrong keys have come from this address, so this one was not "+
			"looked at; the next one is in %v", wait)
	}
	if !e.fleet.Known(sum) {
		e.attempts.Failed(remote, key, "xds grpc")
		return status.Errorf(codes.PermissionDenied, "no gateway is open to this key; check CLUSTER_API_KEY (sent as %s)",
			ads.KeyHeader)
	}
	e.attempts.Passed(key)
	return next(srv, &awaited{ServerStream: s, came: sync.OnceFunc(func() { e.proven(remote) })})
}

// awaited is a stream whose first message shows that its client means it: until then its connection counts as one
// without proof, which is closed after [firstMessage].
type awaited struct {
	grpc.ServerStream
	came func()
}

// RecvMsg reads a message.
func (a *awaited) RecvMsg(m any) error {
	err := a.ServerStream.RecvMsg(m)
	if err == nil {
		a.came()
	}
	return err
}

// Ask has the api say whether somebody may apply a document, before it is read.
func (c client) Ask(ctx context.Context, authorization, remote string) (int, []byte, error) {
	if wait, look := c.attempts.Look(remote, authorization); !look {
		return http.StatusTooManyRequests, fmt.Appendf(nil, `{"status":429,"detail":"too many wrong tokens have come from `+
			`this address, so this one was not looked at; the next one is in %v"}`, wait), nil
	}
	r, err := rpc.Apply(ctx, c.nc, c.box, rpc.Request{Authorization: authorization, Remote: remote, Ask: true})
	switch {
	case err != nil:
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusTooManyRequests: // the api counts by the same address
		c.attempts.Failed(remote, authorization, "xds http")
	case r.Status < 300:
		c.attempts.Passed(authorization)
		c.proven(remote)
	}
	return r.Status, r.Body, err
}
