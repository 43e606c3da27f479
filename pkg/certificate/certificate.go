// Package certificate reads PEM chains and their keys, for the writer and for the check without one. It
// takes what Envoy takes (BoringSSL), which is stricter than Go in places; test/golden compares the two.
package certificate

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Leaf is the first certificate of a PEM chain. The error is a sentence about the chain.
func Leaf(chain string) (*x509.Certificate, error) {
	all, err := Chain(chain)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// Chain is every certificate of a PEM chain, at least one. The error is a sentence about the chain.
func Chain(chain string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	rest := []byte(chain)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("holds a PEM block of type " + block.Type + "; only certificates belong here")
		}
		if len(block.Headers) > 0 {
			return nil, errors.New("holds a PEM block with headers (a line with a colon below BEGIN); take them out")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a certificate that cannot be read (number %d)", len(out)+1)
		}
		out = append(out, c)
	}
	switch n := strings.Count(chain, "-----BEGIN "); {
	case n == 0:
		return nil, errors.New("holds no PEM certificate (-----BEGIN CERTIFICATE-----)")
	case n != len(out): // the decoder passes over what it cannot read
		return nil, errors.New("holds a PEM block that is broken: BEGIN and END stand on lines of their own, " +
			"with Base64 between")
	}
	return out, nil
}

// CheckKey says that a PEM key is the private key of the chain's leaf. The error is a sentence about the
// key.
func CheckKey(chain, key string) error {
	if _, err := tls.X509KeyPair([]byte(chain), []byte(key)); err != nil {
		return errors.New("does not belong to the chain, or is not a PEM private key")
	}
	// Envoy goes by the block's type, Go tries one after the other.
	for rest := []byte(key); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return errors.New("is not a PEM private key")
		}
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			_, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			_, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			_, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			if strings.HasSuffix(block.Type, "PRIVATE KEY") {
				return errors.New("is a PEM block of type " + block.Type + "; it must be PRIVATE KEY, EC PRIVATE KEY " +
					"or RSA PRIVATE KEY")
			}
			continue
		}
		if err != nil {
			return errors.New("is called " + block.Type + " and holds something else; convert it: openssl pkey -in " +
				"KEY.pem -out NEW.pem")
		}
		return nil
	}
}

var (
	tlsFeature  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24} // RFC 7633
	mustStaple  = 5
	minRSA      = 2048
	supportedEC = []string{"P-256", "P-384", "P-521"}
)

// Presentable says what is wrong with a leaf that an Envoy is to present; the error is a sentence about the
// chain, nil where Envoy takes it. Being expired is no fault here, nor for Envoy.
func Presentable(leaf *x509.Certificate) error {
	switch k := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA {
			return fmt.Errorf("has an RSA key of %d bits; Envoy presents none below %d: issue it anew with a larger key, or "+
				"with ECDSA P-256", n, minRSA)
		}
	case *ecdsa.PublicKey:
		if c := k.Curve.Params().Name; !slices.Contains(supportedEC, c) {
			return fmt.Errorf("has an ECDSA key on the curve %s; Envoy presents P-256, P-384 and P-521: issue it anew", c)
		}
		if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
			return errors.New("has a key usage without digitalSignature, so that its ECDSA key cannot be used for TLS; issue " +
				"it anew with digitalSignature, or without key usage")
		}
	default:
		return fmt.Errorf("has a key of the kind %s, which browsers and Envoy do not use for TLS; issue it anew with ECDSA "+
			"P-256 or RSA %d", leaf.PublicKeyAlgorithm, minRSA)
	}
	if leaf.Subject.CommonName == "" && len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs) == 0 {
		return errors.New("names nothing: it has neither subject alternative names nor a common name; issue it anew for " +
			"the names that it is to serve")
	}
	for _, x := range leaf.Extensions {
		var features []int
		if x.Id.Equal(tlsFeature) {
			if _, err := asn1.Unmarshal(x.Value, &features); err == nil && slices.Contains(features, mustStaple) {
				return errors.New("demands a stapled OCSP response (must-staple), which is not supported; issue it anew without")
			}
		}
	}
	return nil
}
