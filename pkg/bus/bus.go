// Package bus connects a part to NATS: by which key and certificate it is known there, where its answers come, and
// what it says when it is not let do something.
package bus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/identity"
)

// InboxPrefix is where answers to a user come, who is known by the public key: nobody else may listen there.
func InboxPrefix(public string) string { return "_INBOX." + public }

// Connect connects, and comes back whenever NATS does. It does not wait for a server that is away.
func Connect(
	url, name string, s identity.Settings, id *identity.Identity, log *zap.Logger, more ...nats.Option,
) (*nats.Conn, error) {
	auth, err := Options(s, id)
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(url, append(append([]nats.Option{
		nats.Name(name), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond), nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		// A user or a certificate that is refused may be known to the server a moment later.
		nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("NATS", zap.Error(err)) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { log.Warn("NATS cannot be reached", zap.Error(err)) }),
	}, auth...), more...)...)
	if err != nil {
		return nil, fmt.Errorf("NATS_URL: %w", err)
	}
	return nc, nil
}

// Options are those of a connection's identity.
func Options(s identity.Settings, id *identity.Identity) ([]nats.Option, error) {
	var out []nats.Option
	if s.Seed != "" {
		pair, err := nkeys.FromSeed([]byte(s.Seed))
		if err != nil {
			return nil, errors.New("NATS_NKEY is not the seed of an NKey: it begins with SU and marchproxy pki issue makes it")
		}
		public, err := pair.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("NATS_NKEY: %w", err)
		}
		out = append(out, nats.Nkey(public, pair.Sign), nats.CustomInboxPrefix(InboxPrefix(public)))
	}
	if id.HasCert() || id.Trusts() {
		var cert nats.TLSCertHandler
		var roots nats.RootCAsHandler
		if id.HasCert() {
			cert = func() (tls.Certificate, error) { return id.Certificate() }
		}
		if id.Trusts() {
			roots = func() (*x509.CertPool, error) { return id.Authorities() }
		}
		if s.Encrypts() {
			out = append(out, nats.ClientTLSConfig(cert, roots))
		}
	}
	return out, nil
}
