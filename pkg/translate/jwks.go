package translate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// jwk is a JSON Web Key (RFC 7517, RFC 7518 §6, RFC 8037). Envoy gets these members and no others, in their canonical
// form: nothing else that stands in a user's key can have it refuse a set.
type jwk struct {
	KTY string `json:"kty"`
	KID string `json:"kid,omitempty"`
	Alg string `json:"alg,omitempty"`
	Crv string `json:"crv,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	K   string `json:"k,omitempty"`
}

// jwkSet is a JSON Web Key Set.
type jwkSet struct {
	Keys []jwk `json:"keys"`
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// publicKey reads a key's PEM; the error says what is wrong in words that go after the field's name.
func publicKey(k *configv1.JwtKey) (jwk, error) {
	block, rest := pem.Decode([]byte(k.GetPublicKey()))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return jwk{}, errors.New("must be one PEM block, -----BEGIN PUBLIC KEY----- or -----BEGIN CERTIFICATE-----")
	}
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = c.PublicKey
		}
	default:
		return jwk{}, errors.New("holds a PEM block of type " + block.Type + "; a public key belongs here")
	}
	if err != nil {
		return jwk{}, errors.New("cannot be read as a public key")
	}
	wrong := errors.New("is a key of another kind than algorithm " + k.GetAlgorithm().String() + " needs")
	switch key := key.(type) {
	case *rsa.PublicKey:
		if a := k.GetAlgorithm(); a < configv1.JwtKey_RS256 || a > configv1.JwtKey_RS512 {
			return jwk{}, wrong
		}
		e := big.NewInt(int64(key.E))
		if message := checkRSA(key.N, e); message != "" {
			return jwk{}, errors.New("cannot be used: " + message)
		}
		return rsaKey(key.N, e), nil
	case *ecdsa.PublicKey:
		curve := map[configv1.JwtKey_Algorithm]elliptic.Curve{
			configv1.JwtKey_ES256: elliptic.P256(), configv1.JwtKey_ES384: elliptic.P384(),
			configv1.JwtKey_ES512: elliptic.P521(),
		}[k.GetAlgorithm()]
		if key.Curve != curve {
			return jwk{}, wrong
		}
		point, err := key.Bytes() // 4, x, y
		if err != nil {
			return jwk{}, errors.New("is no point of its curve")
		}
		return ecKey(curve, point), nil
	case ed25519.PublicKey:
		if k.GetAlgorithm() != configv1.JwtKey_EdDSA {
			return jwk{}, wrong
		}
		return edKey(key), nil
	default:
		return jwk{}, wrong
	}
}

func rsaKey(n, e *big.Int) jwk { return jwk{KTY: "RSA", N: b64(n.Bytes()), E: b64(e.Bytes())} }

// ecKey is that of a point as SEC 1 writes it without compression: 4, x, y.
func ecKey(c elliptic.Curve, point []byte) jwk {
	half := len(point) / 2
	return jwk{KTY: "EC", Crv: c.Params().Name, X: b64(point[1 : 1+half]), Y: b64(point[1+half:])}
}

func edKey(key []byte) jwk { return jwk{KTY: "OKP", Crv: "Ed25519", X: b64(key)} }
