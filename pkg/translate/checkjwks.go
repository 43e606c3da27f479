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

// publicKeys decodes a key set: public keys only, each one that Envoy can use. Of a set without any such key Envoy
// refuses the whole config of the gateway's filter, and what it cannot use of another set it passes over in
// silence. What is wrong is said in words that go after the field's name.
func publicKeys(text string) (keys []jwk, wrong []string) {
	var set map[string]json.RawMessage
	var list []map[string]json.RawMessage
	err := json.Unmarshal([]byte(text), &set)
	if err == nil {
		err = json.Unmarshal(set["keys"], &list)
	}
	if err != nil || len(list) == 0 {
		return nil, []string{`must be a JSON Web Key Set: {"keys":[...]} with at least one key`}
	}
	for i, members := range list {
		key, message := decodeJWK(members)
		switch {
		case isPrivate(members):
			wrong = append(wrong, fmt.Sprintf("has as key %d a private or shared one; give public ones only, and take this "+
				"one for known. Shared secrets belong under keys, where they are sealed", i))
		case message != "":
			message = fmt.Sprintf("has as key %d one that cannot be used: %s; correct it or take it out", i, message)
			wrong = append(wrong, message)
		default:
			keys = append(keys, key)
		}
	}
	return keys, wrong
}

// isPrivate says whether a key has a member that only private and shared keys have (RFC 7518 §6).
func isPrivate(members map[string]json.RawMessage) bool {
	return slices.ContainsFunc([]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}, func(name string) bool {
		_, there := members[name]
		return there
	})
}

var (
	rsaAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	// maxRSA is BoringSSL's limit, in bits.
	maxRSA = 16384
	curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	// curveAlgorithms are the one algorithm of each curve (RFC 7518 §3.4).
	curveAlgorithms = map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
)

// decodeJWK reads a public key, or says why Envoy cannot use it.
func decodeJWK(members map[string]json.RawMessage) (jwk, string) {
	text := map[string]string{}
	for _, name := range []string{"kty", "alg", "kid", "crv", "n", "e", "x", "y"} {
		raw, there := members[name]
		if !there {
			continue
		}
		var s *string
		if err := json.Unmarshal(raw, &s); err != nil || s == nil {
			return jwk{}, "its " + name + " is not a string"
		}
		text[name] = *s
	}
	bytes := map[string][]byte{}
	need := map[string][]string{"RSA": {"n", "e"}, "EC": {"x", "y"}, "OKP": {"x"}}[text["kty"]]
	for _, name := range need {
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text[name], "="))
		if err != nil || len(raw) == 0 || strings.ContainsAny(text[name], "\r\n") {
			return jwk{}, "its " + name + " is missing, or no Base64url"
		}
		bytes[name] = raw
	}
	var key jwk
	var algorithms []string
	switch text["kty"] {
	case "RSA":
		n, e := new(big.Int).SetBytes(bytes["n"]), new(big.Int).SetBytes(bytes["e"])
		if message := checkRSA(n, e); message != "" {
			return jwk{}, message
		}
		key, algorithms = rsaKey(n, e), rsaAlgorithms
	case "EC":
		c := curves[text["crv"]]
		if c == nil {
			return jwk{}, "its crv must be P-256, P-384 or P-521"
		}
		point := pointOf(c, bytes["x"], bytes["y"])
		if point == nil {
			return jwk{}, "its x and y are no point of " + text["crv"]
		}
		key, algorithms = ecKey(c, point), []string{curveAlgorithms[text["crv"]]}
	case "OKP":
		if text["crv"] != "Ed25519" || len(bytes["x"]) != 32 {
			return jwk{}, "of kty OKP only Ed25519 can be used, with an x of 32 bytes"
		}
		key, algorithms = edKey(bytes["x"]), []string{"EdDSA"}
	default:
		return jwk{}, "it is neither RSA, EC nor OKP"
	}
	if a, there := text["alg"]; there && !slices.Contains(algorithms, a) {
		allowed := strings.Join(algorithms, " or ")
		return jwk{}, fmt.Sprintf("its alg is %q; with this kty and crv it must be %s, or absent", a, allowed)
	}
	key.KID, key.Alg = text["kid"], text["alg"]
	return key, ""
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

// pointOf is a point of a curve without compression: 4, x, y; nil where there is no such point.
func pointOf(c elliptic.Curve, x, y []byte) []byte {
	size := (c.Params().BitSize + 7) / 8
	point := append(make([]byte, 0, 1+2*size), 4)
	for _, v := range [][]byte{x, y} {
		n := new(big.Int).SetBytes(v)
		if n.BitLen() > 8*size {
			return nil
		}
		point = append(point, n.FillBytes(make([]byte, size))...)
	}
	if _, err := ecdsa.ParseUncompressedPublicKey(c, point); err != nil {
		return nil
	}
	return point
}
