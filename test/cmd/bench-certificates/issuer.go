package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/marchproxy/marchproxy/test/authority"
)

// issuer makes certificates that sign themselves, all with one key.
type issuer struct {
	key *ecdsa.PrivateKey
	pem string
}

func newIssuer() (*issuer, error) {
	key, private, err := authority.Key()
	return &issuer{key, private}, err
}

// certificate is one as the API takes it, for these hosts.
func (i *issuer) certificate(name string, hosts ...string) (map[string]any, error) {
	chain, err := authority.Sign(authority.Server(90*24*time.Hour, hosts...), i.key, nil)
	return map[string]any{"kind": "Certificate", "name": name, "spec": map[string]any{
		"chain":       chain,
		"private_key": i.pem,
	}}, err
}

// handshake is the common name of what is presented for a server name.
func (b *bench) handshake(name string) (string, error) {
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	plain, err := (&net.Dialer{}).DialContext(limit, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)))
	if err != nil {
		return "", err
	}
	// The certificates are nobody's: it matters which one is presented.
	c := tls.Client(plain, &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	defer func() { _ = plain.Close() }()
	if err := c.HandshakeContext(limit); err != nil {
		return "", errors.Join(err, plain.Close())
	}
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}
