package translate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// jwks checks a key set: public keys only, each one that Envoy can use. Of a set without any such key Envoy refuses
// everything that stands in the gateway's slot, and what it cannot use of another set it passes over in silence.
func (k *checker) jwks(text string) {
	var set struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal([]byte(text), &set); err != nil || len(set.Keys) == 0 {
		k.add("$.jwt.jwks", "auth_policy.jwks", `must be a JSON Web Key Set: {"keys":[...]} with at least one key`)
		return
	}
	for i, key := range set.Keys {
		switch message := checkJWK(key); {
		case has(key, "d") || has(key, "k"):
			k.add("$.jwt.jwks", "auth_policy.jwks", "has as key %d a private or shared one; give public ones only, and take this one for known. Shared secrets belong under keys, where they are sealed", i)
		case message != "":
			k.add("$.jwt.jwks", "auth_policy.jwks", "has as key %d one that cannot be used: %s; correct it or take it out", i, message)
		}
	}
}

func has(key map[string]json.RawMessage, name string) bool {
	_, there := key[name]
	return there
}

var (
	rsaAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	// maxRSA is BoringSSL's limit, in bits.
	maxRSA = 16384
	curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	// curveAlgorithms are the one algorithm of each curve (RFC 7518 §3.4).
	curveAlgorithms = map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
)

// checkJWK says why Envoy cannot use a public key, or returns "".
func checkJWK(key map[string]json.RawMessage) string {
	text := map[string]string{}
	for _, name := range []string{"kty", "alg", "kid", "crv", "n", "e", "x", "y"} {
		raw, there := key[name]
		if !there {
			continue
		}
		var s *string
		if err := json.Unmarshal(raw, &s); err != nil || s == nil {
			return "its " + name + " is not a string"
		}
		text[name] = *s
	}
	algorithm := func(allowed ...string) string {
		if a, there := text["alg"]; there && !slices.Contains(allowed, a) {
			return fmt.Sprintf("its alg is %q; with this kty and crv it must be %s, or absent", a, strings.Join(allowed, " or "))
		}
		return ""
	}
	bytes := map[string][]byte{}
	need := map[string][]string{"RSA": {"n", "e"}, "EC": {"x", "y"}, "OKP": {"x"}}[text["kty"]]
	for _, name := range need {
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text[name], "="))
		if err != nil || len(raw) == 0 {
			return "its " + name + " is missing, or no Base64url"
		}
		bytes[name] = raw
	}
	switch text["kty"] {
	case "RSA":
		if message := checkRSA(new(big.Int).SetBytes(bytes["n"]), new(big.Int).SetBytes(bytes["e"])); message != "" {
			return message
		}
		return algorithm(rsaAlgorithms...)
	case "EC":
		c := curves[text["crv"]]
		if c == nil {
			return "its crv must be P-256, P-384 or P-521"
		}
		if !onCurve(c, bytes["x"], bytes["y"]) {
			return "its x and y are no point of " + text["crv"]
		}
		return algorithm(curveAlgorithms[text["crv"]])
	case "OKP":
		if text["crv"] != "Ed25519" || len(bytes["x"]) != 32 {
			return "of kty OKP only Ed25519 can be used, with an x of 32 bytes"
		}
		return algorithm("EdDSA")
	default:
		return "it is neither RSA, EC nor OKP"
	}
}

// checkRSA says why BoringSSL, or RFC 7518, does not take an RSA key, or returns "".
func checkRSA(n, e *big.Int) string {
	switch {
	case n.BitLen() < 2048:
		return "it is an RSA key of fewer than 2048 bits, which RFC 7518 forbids"
	case n.BitLen() > maxRSA:
		return fmt.Sprintf("it is an RSA key of more than %d bits", maxRSA)
	case n.Bit(0) == 0 || (e.Cmp(big.NewInt(3)) != 0 && e.Cmp(big.NewInt(65537)) != 0):
		return "its modulus is even, or its exponent neither 65537 nor 3"
	}
	return ""
}

func onCurve(c elliptic.Curve, x, y []byte) bool {
	size := (c.Params().BitSize + 7) / 8
	point := append(make([]byte, 0, 1+2*size), 4)
	for _, v := range [][]byte{x, y} {
		n := new(big.Int).SetBytes(v)
		if n.BitLen() > 8*size {
			return false
		}
		point = append(point, n.FillBytes(make([]byte, size))...)
	}
	_, err := ecdsa.ParseUncompressedPublicKey(c, point)
	return err == nil
}
