package forge

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"hash"
	"math/rand/v2"
	"strings"

	"github.com/marchproxy/marchproxy/test/wasm/host"
)

// Key is a key that verifiers know.
type Key struct {
	Kid, Alg string
	Secret   []byte
	new      func() hash.Hash
}

// Keys are the verifiers' keys: two of HS256, one each of the others.
var Keys = []Key{
	{"k1", "HS256", []byte("0123456789abcdef0123456789abcdef"), sha256.New},
	{"k2", "HS256", []byte("fedcba9876543210fedcba9876543210"), sha256.New},
	{"k384", "HS384", []byte("0123456789abcdef0123456789abcdef0123456789abcdef"), sha512.New384},
	{"k512", "HS512", []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"), sha512.New},
}

// Base64 is the secret as a JWK has it.
func (k Key) Base64() string { return b64(string(k.Secret)) }

// What verifiers are told to want.
const (
	Issuer   = "https://issuer.example"
	Audience = "shop"
	Leeway   = 60
)

// Case is one request.
type Case struct {
	Target  string
	Headers host.Headers
	// Token is the last token that was made, before the request's headers were.
	Token string
}

// Request gives all headers, the pseudo-headers included.
func (c Case) Request() host.Headers {
	return append(host.Headers{{":authority", "x"}, {":path", c.Target}, {":method", "GET"}, {":scheme", "http"}},
		c.Headers...)
}

// Forge makes cases.
type Forge struct {
	*rand.Rand
	// Now is the verifiers' time in seconds since 1970.
	Now int64
	// Slack keeps dates so many seconds away from where the answer changes, for verifiers whose clock runs.
	Slack int64

	src *rand.PCG
}

// New makes a forge. The seed comes with each case.
func New(now, slack int64) *Forge {
	src := rand.NewPCG(0, 0)
	return &Forge{Rand: rand.New(src), Now: now, Slack: slack, src: src}
}

// Case makes the case of that number.
func (f *Forge) Case(seed, number uint64) Case {
	f.src.Seed(seed, number)
	token := f.token()
	c := Case{Target: "/x", Token: token}
	if f.one(40) {
		c.Target = f.target(token)
	}
	c.Headers = f.headers(token)
	return c
}

// one is true once in n times.
func (f *Forge) one(n int) bool { return f.IntN(n) == 0 }

func pick[T any](f *Forge, list ...T) T { return list[f.IntN(len(list))] }

// token makes a token: whole, or with something wrong before or after it was signed.
func (f *Forge) token() string {
	key := Keys[0]
	if f.one(3) {
		key = pick(f, Keys...)
	}
	header, payload := f.header(key), f.payload()
	if f.one(12) {
		header = f.text(header)
	}
	if f.one(8) {
		payload = f.text(payload)
	}
	if f.one(30) {
		key = pick(f, Keys...) // signed with another key than the header says
	}
	token := Sign(key, header, payload)
	for f.one(4) {
		token = f.bytes(token)
	}
	return token
}

// Sign makes a token of any two texts.
func Sign(key Key, header, payload string) string {
	text := b64(header) + "." + b64(payload)
	m := hmac.New(key.new, key.Secret)
	m.Write([]byte(text))
	return text + "." + b64(string(m.Sum(nil)))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// bytes changes a token after it was signed.
func (f *Forge) bytes(token string) string {
	if token == "" {
		return token
	}
	at := f.IntN(len(token))
	switch f.IntN(14) {
	case 0, 1, 2: // another character of the alphabet
		return token[:at] + string(alphabet[f.IntN(64)]) + token[at+1:]
	case 3: // any byte
		return token[:at] + string([]byte{byte(f.IntN(256))}) + token[at+1:]
	case 4:
		return token[:at] + token[at+1:]
	case 5:
		return token[:at] + pick(f, ".", "=", "A", "?", "/", "+", "%", "-") + token[at:]
	case 6:
		return token[:at]
	case 7:
		return token + pick(f, "=", "==", ".", ".x", "A", "AA", "~")
	case 8, 9: // bits that are left over in the last character of the signature
		i := strings.IndexByte(alphabet, token[len(token)-1])
		return token[:len(token)-1] + string(alphabet[(i+1)&63])
	case 10: // no signature
		return token[:strings.LastIndexByte(token, '.')+1]
	case 11: // parts in another order
		parts := strings.Split(token, ".")
		f.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		return strings.Join(parts, ".")
	case 12: // the Base64 of elsewhere
		return strings.NewReplacer("-", "+", "_", "/").Replace(token)
	default: // a part of another token
		return token[:at] + strings.Repeat(pick(f, "A", "eyJ", "."), f.IntN(6))
	}
}

// target is a path that some verifier might find a token in, or read otherwise.
func (f *Forge) target(token string) string {
	return pick(f, "/x?access_token="+strings.Map(printable, token), "/", "/x?a=b", "/x/../y", "/healthz", "/healthz/",
		"/public/a", "/public/./a",
		"/public;a", "/pub%6cic/a", "//public/a", "/public/%2e%2e/x")
}

func printable(r rune) rune {
	if r <= ' ' || r >= 0x7f || r == '#' {
		return 'X'
	}
	return r
}

// headers are those a request carries its token in.
func (f *Forge) headers(token string) host.Headers {
	name := "authorization"
	value := "Bearer " + token
	if f.one(10) {
		value = pick(f, "bearer ", "BEARER ", "Bearer  ", "bearer  ", "Bearer", "", "Basic ", "Bearer\t", " Bearer ",
			"Bearer: ", "Bearer Bearer ", "JWT ", "Bearer,") + token
	}
	if f.one(25) {
		value += pick(f, " ", ",", " x", ";", ", Bearer "+token, "\t", "\xff", "\"")
	}
	var h host.Headers
	switch f.IntN(40) {
	case 0: // none
	case 1:
		h = host.Headers{{name, value}, {name, pick(f, value, "", "Bearer x", "Basic eA==")}}
	case 2:
		h = host.Headers{{name, pick(f, "", "Bearer x", "Basic eA==")}, {name, value}}
	case 3:
		h = host.Headers{{pick(f, "x-authorization", "proxy-authorization", "cookie", "x-token"), value}}
	default:
		h = host.Headers{{name, value}}
	}
	if f.one(20) {
		h = append(h, [2]string{
			pick(f, "x-auth-sub", "X-Auth-Sub", "x-license-key", "x-forwarded-user", "x-n\xffme"),
			pick(f, "root", "", "\xff\xfe", "ä"),
		})
	}
	return h
}
