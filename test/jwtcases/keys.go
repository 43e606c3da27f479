package jwtcases

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // a signature over it must be refused
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"strings"
)

// key signs, rightly or not.
type key struct {
	alg, kid string
	// jwk is the public half, or the secret, as a token could bring it.
	jwk  string
	sign func(text []byte) ([]byte, error)
	// order is that of the key's curve, and little says that its numbers begin with their last byte.
	order  *big.Int
	little bool
}

// Engine is one of both, with keys of its own.
type Engine struct {
	// Name is filter or native, and Keys what its policy has, as JSON.
	Name, Keys string
	keys       map[string]key
}

func (e *Engine) key(name string) (key, error) {
	if name == "" {
		name = "main"
	}
	k, there := e.keys[name]
	if !there {
		return key{}, fmt.Errorf("the engine %s has no key %q", e.Name, name)
	}
	return k, nil
}

// Secrets of the filter's policy.
const (
	Main  = "0123456789abcdef0123456789abcdef"
	Other = "fedcba9876543210fedcba9876543210"
	Long  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func shared(alg, kid, secret string, h func() hash.Hash) key {
	jwk := fmt.Sprintf(`{"kty":"oct","k":%q}`, base64.RawURLEncoding.EncodeToString([]byte(secret)))
	return key{alg: alg, kid: kid, jwk: jwk, sign: func(text []byte) ([]byte, error) {
		m := hmac.New(h, []byte(secret))
		m.Write(text)
		return m.Sum(nil), nil
	}}
}

// hashed is what somebody without a key can make.
func hashed(alg, kid string) key {
	return key{alg: alg, kid: kid, jwk: "{}", sign: func(text []byte) ([]byte, error) {
		sum := sha256.Sum256(text)
		return sum[:], nil
	}}
}

// Filter is our filter's engine.
func Filter() *Engine {
	e := &Engine{Name: "filter", keys: map[string]key{
		"main": shared("HS256", "main", Main, sha256.New), "other": shared("HS256", "other", Other, sha256.New),
		"hs384": shared("HS384", "hs384", Long, sha512.New384), "hs512": shared("HS512", "hs512", Long, sha512.New),
		"stranger": shared("HS256", "main", "a secret that is nobody's at all, really", sha256.New),
		"empty":    shared("HS256", "main", "", sha256.New), "hash": hashed("HS256", "main"),
	}}
	var list []string
	for _, k := range [][3]string{
		{"main", "HS256", Main},
		{"other", "HS256", Other},
		{"hs384", "HS384", Long},
		{"hs512", "HS512", Long},
	} {
		list = append(list, fmt.Sprintf(`{"kid":%q,"algorithm":%q,"secret":%q}`, k[0], k[1], k[2]))
	}
	e.Keys = "[" + strings.Join(list, ",") + "]"
	return e
}

// Native is jwt_authn's engine, with keys that are made now.
func Native() (*Engine, error) {
	e := &Engine{Name: "native", keys: map[string]key{}}
	var list []string
	add := func(kid, alg string, private crypto.Signer, sign func([]byte) ([]byte, error)) error {
		der, err := x509.MarshalPKIXPublicKey(private.Public())
		if err != nil {
			return err
		}
		text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		raw, err := json.Marshal(map[string]string{"kid": kid, "algorithm": alg, "public_key": text})
		if err != nil {
			return err
		}
		list = append(list, string(raw))
		k := key{alg: alg, kid: kid, jwk: "{}", sign: sign}
		switch p := private.(type) {
		case *ecdsa.PrivateKey:
			k.order = p.Params().N
		case ed25519.PrivateKey:
			k.little = true
			k.order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989",
				10)
		}
		e.keys[kid] = k
		return nil
	}
	var rsas []*rsa.PrivateKey
	for range 5 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		rsas = append(rsas, k)
	}
	main, stranger := rsas[0], rsas[4]
	for i, x := range []struct {
		kid, alg string
		hash     crypto.Hash
	}{
		{"main", "RS256", crypto.SHA256},
		{"other", "RS256", crypto.SHA256},
		{"rs384", "RS384", crypto.SHA384},
		{"rs512", "RS512", crypto.SHA512},
	} {
		if err := add(x.kid, x.alg, rsas[i], pkcs1(rsas[i], x.hash)); err != nil {
			return nil, err
		}
	}
	for _, x := range []struct {
		kid, alg string
		curve    elliptic.Curve
		hash     crypto.Hash
	}{
		{"es256", "ES256", elliptic.P256(), crypto.SHA256},
		{"es384", "ES384", elliptic.P384(), crypto.SHA384},
		{"es512", "ES512", elliptic.P521(), crypto.SHA512},
	} {
		k, err := ecdsa.GenerateKey(x.curve, rand.Reader)
		if err == nil {
			err = add(x.kid, x.alg, k, curve(k, x.hash))
		}
		if err != nil {
			return nil, err
		}
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err == nil {
		err = add("eddsa", "EdDSA", ed, func(text []byte) ([]byte, error) { return ed25519.Sign(ed, text), nil })
	}
	if err != nil {
		return nil, err
	}
	e.Keys = "[" + strings.Join(list, ",") + "]"

	der, err := x509.MarshalPKIXPublicKey(main.Public())
	if err != nil {
		return nil, err
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	b64 := base64.RawURLEncoding.EncodeToString
	own := fmt.Sprintf(`{"kty":"RSA","alg":"RS256","n":%q,"e":"AQAB"}`, b64(stranger.N.Bytes()))
	for name, k := range map[string]key{
		"stranger":           {alg: "RS256", kid: "main", jwk: own, sign: pkcs1(stranger, crypto.SHA256)},
		"public-pem":         shared("HS256", "main", text, sha256.New),
		"public-pem-trimmed": shared("HS256", "main", strings.TrimSpace(text), sha256.New),
		"public-pem-512":     shared("HS512", "main", text, sha512.New),
		"public-der":         shared("HS256", "main", string(der), sha256.New),
		"modulus":            shared("HS256", "main", string(main.N.Bytes()), sha256.New),
		"empty":              shared("RS256", "main", "", sha256.New),
		"hash":               hashed("RS256", "main"),
		"main-512":           {alg: "RS512", kid: "main", sign: pkcs1(main, crypto.SHA512)},
		"main-sha1":          {alg: "RS256", kid: "main", sign: pkcs1(main, crypto.SHA1)},
		"main-raw": {alg: "RS256", kid: "main", sign: func(text []byte) ([]byte, error) {
			sum := sha256.Sum256(text)
			return new(big.Int).Exp(new(big.Int).SetBytes(sum[:]), main.D, main.N).FillBytes(make([]byte, 256)), nil
		}},
		"ps256": {alg: "RS256", kid: "main", sign: func(text []byte) ([]byte, error) {
			sum := sha256.Sum256(text)
			return rsa.SignPSS(rand.Reader, main, crypto.SHA256, sum[:],
				&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}},
	} {
		if k.jwk == "" {
			k.jwk = "{}"
		}
		e.keys[name] = k
	}
	return e, nil
}

func digest(h crypto.Hash, text []byte) []byte {
	switch h {
	case crypto.SHA1:
		sum := sha1.Sum(text)
		return sum[:]
	case crypto.SHA256:
		sum := sha256.Sum256(text)
		return sum[:]
	case crypto.SHA384:
		sum := sha512.Sum384(text)
		return sum[:]
	default:
		sum := sha512.Sum512(text)
		return sum[:]
	}
}

func pkcs1(k *rsa.PrivateKey, h crypto.Hash) func([]byte) ([]byte, error) {
	return func(text []byte) ([]byte, error) { return rsa.SignPKCS1v15(rand.Reader, k, h, digest(h, text)) }
}

func curve(k *ecdsa.PrivateKey, h crypto.Hash) func([]byte) ([]byte, error) {
	return func(text []byte) ([]byte, error) {
		r, s, err := ecdsa.Sign(rand.Reader, k, digest(h, text))
		if err != nil {
			return nil, err
		}
		n := (k.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...), nil
	}
}

// mangled is a signature after what a case does to it.
func (c Case) mangled(k key, sig []byte) ([]byte, error) {
	half := len(sig) / 2
	number := func(b []byte) *big.Int {
		b = slices.Clone(b)
		if k.little {
			slices.Reverse(b)
		}
		return new(big.Int).SetBytes(b)
	}
	bytes := func(n *big.Int) []byte {
		out := n.FillBytes(make([]byte, half))
		if k.little {
			slices.Reverse(out)
		}
		return out
	}
	switch c.Mangle {
	case "", "leftover":
		return sig, nil
	case "der":
		return asn1.Marshal(struct{ R, S *big.Int }{number(sig[:half]), number(sig[half:])})
	case "zero":
		return make([]byte, len(sig)), nil
	case "order":
		return append(bytes(k.order), bytes(k.order)...), nil
	case "r-zero":
		return append(make([]byte, half), sig[half:]...), nil
	case "s-zero":
		return append(sig[:half:half], make([]byte, half)...), nil
	case "swapped":
		return append(sig[half:len(sig):len(sig)], sig[:half]...), nil
	case "other-s":
		s := new(big.Int).Sub(k.order, number(sig[half:]))
		if k.little {
			s = new(big.Int).Add(k.order, number(sig[half:]))
		}
		return append(sig[:half:half], bytes(s)...), nil
	case "longer":
		if k.order == nil {
			return append(sig, 0), nil
		}
		return slices.Concat([]byte{0}, sig[:half], []byte{0}, sig[half:]), nil
	case "truncated":
		return sig[:len(sig)-1], nil
	case "flipped":
		sig[half] ^= 1
		return sig, nil
	}
	return nil, fmt.Errorf("nobody knows how to mangle a signature so: %q", c.Mangle)
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// parts are those of a token, and the claims of somebody else.
func (c Case) parts(e *Engine, header, claims string) (parts []string, others string, err error) {
	k, err := e.key(c.Sign)
	if err != nil {
		return nil, "", err
	}
	write := base64.RawURLEncoding.EncodeToString
	switch c.Form {
	case "":
	case "padded":
		for len(header)%3 == 0 { // or there would be nothing to pad
			header += " "
		}
		write = base64.URLEncoding.EncodeToString
	case "standard":
		claims = strings.Replace(claims, "{", `{"x":"???>>>~~~",`, 1)
		write = base64.RawStdEncoding.EncodeToString
	case "lines":
		write = func(b []byte) string {
			text := base64.RawURLEncoding.EncodeToString(b)
			return text[:8] + "\r\n" + text[8:]
		}
	default:
		return nil, "", fmt.Errorf("nobody knows how to write parts so: %q", c.Form)
	}
	parts = []string{write([]byte(header)), write([]byte(claims))}
	sig, err := k.sign([]byte(parts[0] + "." + parts[1]))
	if err == nil {
		sig, err = c.mangled(k, sig)
	}
	if err != nil {
		return nil, "", err
	}
	parts = append(parts, write(sig))
	if c.Mangle == "leftover" {
		last := len(parts[2]) - 1
		parts[2] = parts[2][:last] + string(alphabet[strings.IndexByte(alphabet, parts[2][last])+1])
	}
	return parts, write([]byte(strings.Replace(claims, `"ann"`, `"root"`, 1))), nil
}
