package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// placeholder marks certificates that stand in for one that is not issued yet. What is no host's name is presented for
// none: a name is served by whatever else there is for it.
const placeholder = "MarchProxy: not issued yet"

// Placeholder makes a self-signed certificate with its key, both PEM, that has no names. A listener can open with it.
func Placeholder() (chain, key string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return "", "", fmt.Errorf("make a serial number: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: placeholder, Organization: []string{placeholder}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		return "", "", fmt.Errorf("make a certificate: %w", err)
	}
	chain = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key, err = KeyPEM(k)
	return chain, key, err
}

// KeyPEM is a private key as PEM (PKCS #8).
func KeyPEM(key any) (string, error) {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode a key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})), nil
}

// IsPlaceholder says whether a leaf is of [Placeholder].
func IsPlaceholder(leaf *x509.Certificate) bool {
	return leaf.Subject.CommonName == placeholder && slices.Contains(leaf.Subject.Organization, placeholder)
}
