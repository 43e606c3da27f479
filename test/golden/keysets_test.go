package golden

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestKeySets: key sets that the checks take, a running Envoy takes: one key that it cannot read has it refuse
// every key of the gateway.
func TestKeySets(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	of := func(parts ...string) object {
		o := object{}
		for i := 0; i < len(parts); i += 2 {
			o[parts[i]] = parts[i+1]
		}
		return o
	}
	with := func(o object, name string, v any) object {
		out := deepCopy(o).(object)
		if out[name] = v; v == nil {
			delete(out, name)
		}
		return out
	}
	public := func(k *rsa.PrivateKey) object {
		return of("kty", "RSA", "n", b64(k.N.Bytes()), "e", b64(big.NewInt(int64(k.E)).Bytes()))
	}
	ec := func(c elliptic.Curve) object {
		point, err := key(t, c).PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := len(point) / 2
		return of("kty", "EC", "crv", c.Params().Name, "x", b64(point[1:1+half]), "y", b64(point[1+half:]))
	}
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, p256, ed := public(rsaKey(t, 2048)), ec(elliptic.P256()), of("kty", "OKP", "crv", "Ed25519", "x", b64(edKey))
	sets := map[string][]any{
		"rsa": {good}, "rsa 1024": {public(rsaKey(t, 1024))}, "p-256": {p256}, "p-384": {ec(elliptic.P384())},
		"p-521": {ec(elliptic.P521())}, "p-224": {ec(elliptic.P224())}, "ed25519": {ed},
		"all": {good, p256, ed}, "twice": {good, good}, "same kid": {with(good, "kid", "a"), with(p256, "kid", "a")},
		"no kty": {with(good, "kty", nil)}, "kty of another": {with(good, "kty", "EC")},
		"kty in lower case": {with(good, "kty", "rsa")}, "shared": {of("kty", "oct", "k", "AAAA")},
		"kty a number": {with(good, "kty", 1)},
		"no n":         {with(good, "n", nil)}, "no e": {with(good, "e", nil)}, "n empty": {with(good, "n", "")},
		"e empty": {with(good, "e", "")}, "n a number": {with(good, "n", 5)}, "n not base64": {with(good, "n", "!!!")},
		"n padded": {with(good, "n", b64([]byte("xy"))+"==")},
		"n base64": {with(good, "n", "+/+/")}, "e even": {with(good, "e", "AAAC")},
		"e large": {with(good, "e", b64(make([]byte, 9))+"AQAB")}, "e one": {with(good, "e", "AQ")},
		"n zero": {with(good, "n", "AA")}, "n even": {with(good, "n", b64(append(make([]byte, 255), 2)))},
		"n huge": {with(good, "n", b64(fill(3000)))}, "n largest": {with(good, "n", b64(fill(2048)))},
		"n 2048": {with(good, "n", b64(fill(256)))}, "e 3": {with(good, "e", "Aw")}, "e 17": {with(good, "e", "EQ")},
		"e 33 bits": {with(good, "e", "AQAAAAE")},
		"no crv":    {with(p256, "crv", nil)}, "crv of another": {with(p256, "crv", "P-384")},
		"crv unknown": {with(p256, "crv", "secp256k1")}, "no x": {with(p256, "x", nil)}, "no y": {with(p256, "y", nil)},
		"x empty": {with(p256, "x", "")}, "no point": {with(p256, "x", p256["y"])},
		"x long": {with(p256, "x", b64(fill(40)))},
		"x25519": {with(ed, "crv", "X25519")}, "ed448": {with(ed, "crv", "Ed448")}, "ed without crv": {with(ed, "crv", nil)},
		"ed without x": {with(ed, "x", nil)}, "ed short": {with(ed, "x", b64(edKey[1:]))},
		"ed padded": {with(ed, "x", base64.URLEncoding.EncodeToString(edKey))},
		"alg":       {with(good, "alg", "RS256")}, "alg of another kind": {with(good, "alg", "ES256")},
		"alg of another curve": {with(p256, "alg", "ES384")}, "alg shared": {with(good, "alg", "HS256")},
		"alg unknown": {with(good, "alg", "X")}, "alg none": {with(good, "alg", "none")},
		"alg a number": {with(good, "alg", 1)}, "alg pss": {with(good, "alg", "PS256")},
		"alg of ed": {with(ed, "alg", "EdDSA")}, "alg of ed wrong": {with(ed, "alg", "RS256")},
		"kid a number": {with(good, "kid", 1)}, "kid null": {with(good, "kid", json.RawMessage("null"))},
		"kid empty": {with(good, "kid", "")}, "use enc": {with(good, "use", "enc")}, "use": {with(good, "use", "sig")},
		"key_ops": {with(good, "key_ops", []any{"verify"})}, "more": {with(good, "x5c", []any{"x"})},
		"use a number":             {with(good, "use", 1)},
		"a good one and a bad one": {good, with(good, "n", nil)}, "a good one and one of no kind": {good, object{}},
		"private": {with(good, "d", "AAAA")}, "a string": {"x"}, "null": {nil}, "a list": {[]any{}}, "none": {},
	}
	e := startLive(t, nil)
	roots := rootsOf(t)
	var listeners []any
	var names []string
	for name, keys := range sets {
		raw, err := json.Marshal(object{"keys": keys})
		if err != nil {
			t.Fatal(err)
		}
		st := config.New()
		policy := object1(t, resource.KindAuthPolicy, "p", fmt.Sprintf(`{"jwt":{"jwks":%q}}`, raw))
		changes, _ := st.Apply([]*resource.Object{
			policy, object1(t, resource.KindGateway, resource.DefaultGateway, `{"listeners":[{"name":"http","port":10000}],`+
				`"auth_policy":"p"}`),
			object1(t, resource.KindRoute, "r", `{"direct_response":{"status":200}}`),
		})
		if problems := translate.Check(st, changes); len(problems) > 0 {
			continue
		}
		ls, _ := alone(t, len(names), differing(built(t, st), nil), roots)
		names, listeners = append(names, name), append(listeners, ls...)
	}
	for i, said := range e.load(t, "lds", listeners) {
		t.Errorf("%s: accepted by the checks, refused by Envoy: %.300s", names[i], said)
	}
	slices.Sort(names)
	want := []string{
		"alg", "alg of ed", "alg pss", "all", "e 3", "e large", "ed padded", "ed25519", "key_ops", "kid empty", "more",
		"n 2048", "n largest", "p-256", "p-384", "p-521",
		"rsa", "same kid", "twice", "use", "use a number", "use enc",
	}
	if !slices.Equal(names, want) {
		t.Errorf("the checks take %q, want %q", names, want)
	}
}

func fill(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(i) | 0x81
	}
	return out
}
