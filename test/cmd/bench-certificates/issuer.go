package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strconv"
	"time"
)

// issuer makes certificates that sign themselves, all with one key.
type issuer struct {
	key *ecdsa.PrivateKey
	pem string
}

func newIssuer() (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	return &issuer{key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))}, err
}

// certificate is one as the API takes it, for these hosts.
func (i *issuer) certificate(name string, hosts ...string) (map[string]any, error) {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &i.key.PublicKey, i.key)
	if err != nil {
		return nil, err
	}
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return map[string]any{"kind": "Certificate", "name": name, "spec": map[string]any{"chain": chain, "private_key": i.pem}}, nil
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
