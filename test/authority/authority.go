// Package authority makes the certificates of tests and benchmarks: those of an authority of their own, and those that
// sign themselves.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"time"
)

// Authority is a certificate authority.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// PEM is its certificate.
	PEM string
}

// New makes an authority for so long.
func New(name string, lasts time.Duration) (*Authority, error) {
	key, _, err := Key()
	if err != nil {
		return nil, err
	}
	a := &Authority{Key: key}
	a.PEM, err = Sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(lasts), KeyUsage: x509.KeyUsageCertSign,
	}, key, nil)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(a.PEM))
	a.Cert, err = x509.ParseCertificate(block.Bytes)
	return a, err
}

// Issue makes a key and a certificate for it, both as PEM, by [Sign].
func (a *Authority) Issue(c *x509.Certificate) (chain, private string, err error) {
	key, private, err := Key()
	if err != nil {
		return "", "", err
	}
	chain, err = Sign(c, key, a)
	return chain, private, err
}

// Server is a certificate to sign for these names, which counts for servers and for clients.
func Server(lasts time.Duration, names ...string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotAfter: time.Now().Add(lasts),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// Key makes a key, which private is as PEM.
func Key() (key *ecdsa.PrivateKey, private string, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, "", err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	return key, encode("PRIVATE KEY", raw), err
}

// Sign makes a certificate for a key, as PEM, signed by an authority or, where that is nil, by itself. What c does not
// say of its number and its beginning is a new one, and an hour ago.
func Sign(c *x509.Certificate, key crypto.Signer, by *Authority) (string, error) {
	if c.SerialNumber == nil {
		c.SerialNumber = big.NewInt(time.Now().UnixNano())
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-time.Hour)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.Cert, by.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	return encode("CERTIFICATE", der), err
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
