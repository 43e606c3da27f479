// Package certificate reads PEM chains and their keys, for the writer and for the check without one.
package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
)

// Leaf is the first certificate of a PEM chain. The error is a sentence about the chain.
func Leaf(chain string) (*x509.Certificate, error) {
	var leaf *x509.Certificate
	rest := []byte(chain)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("holds a PEM block of type " + block.Type + "; only certificates belong here")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("holds a certificate that cannot be read")
		}
		if leaf == nil {
			leaf = c
		}
	}
	if leaf == nil {
		return nil, errors.New("holds no PEM certificate (-----BEGIN CERTIFICATE-----)")
	}
	return leaf, nil
}

// CheckKey says that a PEM key is the private key of the chain's leaf. The error is a sentence about the
// key.
func CheckKey(chain, key string) error {
	if _, err := tls.X509KeyPair([]byte(chain), []byte(key)); err != nil {
		return errors.New("does not belong to the chain, or is not a PEM private key")
	}
	return nil
}
