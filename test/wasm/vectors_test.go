package wasm

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/wasm/envoy"
	"github.com/marchproxy/marchproxy/test/wasm/host"
)

func vectors[T any](t *testing.T, name string) T {
	t.Helper()
	b, err := os.ReadFile("testdata/wycheproof/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

type jwk struct {
	Kid string `json:"kid"`
	Alg string `json:"alg"`
	K   string `json:"k"`
}

// withKey configures one policy for everything, with that key.
func withKey(keys ...jwk) object {
	return object{"default_policy": "p", "policies": []object{{"name": "p", "jwt": object{"keys": keys}}}}
}

// signed says whether the filter found the signature good, whatever it then thought of the claims.
func signed(o host.Outcome) bool {
	switch refusedFor(o) {
	case "", "marchproxy_auth_claims", "marchproxy_auth_no_expiry", "marchproxy_auth_expired":
		return true
	}
	return false
}

// deviations from Wycheproof, and why: two kinds, each twice.
var deviations = map[int]string{
	367: "byte for byte the same as the valid case 357: the padding that it is about got lost in the file",
	370: "as 367",
	372: "valid for readers that skip characters outside the alphabet; RFC 7515 has no such characters, so " +
		"it is refused here",
	373: "as 372",
}

type jwsCase struct {
	TcID    int `json:"tcId"`
	Comment string
	JWS     any
	Result  string
	// Text is the token as it goes into the header.
	Text string `json:"-"`
}

// jwsCases gives Wycheproof's cases of HS256, by their keys.
func jwsCases(t *testing.T) map[jwk][]jwsCase {
	t.Helper()
	type file struct {
		TestGroups []struct {
			Private jwk
			Tests   []jwsCase
		}
	}
	cases, ran := make(map[jwk][]jwsCase), 0
	for _, g := range vectors[file](t, "json_web_signature_test.json").TestGroups {
		if g.Private.Alg != "HS256" {
			continue
		}
		for _, c := range g.Tests {
			ran++
			var compact bool
			if c.Text, compact = c.JWS.(string); !compact {
				b, err := json.Marshal(c.JWS)
				if err != nil {
					t.Fatal(err)
				}
				c.Text = string(b)
			}
			cases[g.Private] = append(cases[g.Private], c)
		}
	}
	if ran != 40 {
		t.Errorf("%d cases, want 40", ran)
	}
	return cases
}

// want says whether the signature is to be found good here.
func (c jwsCase) want() bool { return (c.Result == "valid") != (deviations[c.TcID] != "") }

func TestWycheproofJWS(t *testing.T) {
	texts := make(map[int]string)
	for key, cases := range jwsCases(t) {
		vm := start(t, "auth", withKey(key))
		for _, c := range cases {
			texts[c.TcID] = c.Text
			o := send(t, vm, request("/", "authorization", "Bearer "+c.Text))
			if signed(o) != c.want() {
				t.Errorf("case %d (%s): signature good %v, want %v (%s)", c.TcID, c.Comment, signed(o), c.want(), refusedFor(o))
			}
			if o.Passed {
				t.Errorf("case %d passed, and none of them has claims", c.TcID)
			}
		}
	}
	if texts[367] != texts[357] || texts[370] != texts[357] || texts[357] == "" {
		t.Error("cases 367 and 370 are no longer the same as 357: they are no deviations any more")
	}
}

// TestVectorsInEnvoy sends the same tokens through the real Envoy, and reads there why each was refused.
func TestVectorsInEnvoy(t *testing.T) {
	reasons := regexp.MustCompile(`marchproxy_auth_decisions_total.*reason=([a-z_]+);: ([1-9]\d*)`)
	run := func(configuration object, cases []jwsCase) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		p, err := envoy.Start(ctx, envoy.Config{
			Backend: echo(t),
			Filters: []envoy.Filter{{Name: "auth", Configuration: configuration}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Stop()
		seen := make(map[string]string)
		for _, c := range cases {
			if got := get(t, p, "/", "authorization", "Bearer "+c.Text).StatusCode; got != 401 {
				t.Errorf("case %d: %d, and none of them is good now", c.TcID, got)
			}
			stats, err := p.Get("/stats?filter=marchproxy_auth_decisions")
			if err != nil {
				t.Fatal(err)
			}
			reason := ""
			for _, m := range reasons.FindAllStringSubmatch(stats, -1) {
				if seen[m[1]] != m[2] {
					reason, seen[m[1]] = m[1], m[2]
				}
			}
			if good := reason == "claims" || reason == "expired"; good != c.want() || reason == "" {
				t.Errorf("case %d (%s): %q, want a good signature: %v", c.TcID, c.Comment, reason, c.want())
			}
		}
		noFailures(t, p)
	}
	for key, cases := range jwsCases(t) {
		run(withKey(key), cases)
	}
	run(withKey(jwk{"", "HS256", rfc7515Key}), []jwsCase{{Text: rfc7515Token, Result: "valid", Comment: "RFC 7515 A.1"}})
	run(withKey(rfc7520Key), []jwsCase{
		{Text: rfc7520Head + rfc7520Payload + rfc7520MAC, Result: "valid", Comment: "RFC 7520 4.4"},
		{Text: rfc7520Head + rfc7520MAC, Result: "invalid", Comment: "RFC 7520 4.5"},
	})
}

// TestOtherLibrariesInEnvoy: Wycheproof has no HS384 and HS512, so tokens of golang-jwt and go-jose go through the
// real Envoy for each algorithm: as they are, with one bit off at either end of the signature, without it, under the
// name of another algorithm's key, and too late.
func TestOtherLibrariesInEnvoy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := envoy.Start(ctx, envoy.Config{
		Backend: echo(t),
		Filters: []envoy.Filter{{Name: "auth", Configuration: authUsers()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	flip := func(token string, at int) string {
		c := byte('A')
		if token[at] == c {
			c = 'B'
		}
		return token[:at] + string(c) + token[at+1:]
	}
	ran := 0
	for kid := range methods {
		other := map[string]string{"k1": "k384", "k384": "k512", "k512": "k1"}[kid]
		for library, sign := range map[string]func(testing.TB, string, object) string{
			"golang-jwt": token,
			"go-jose":    byGoJose,
		} {
			good := sign(t, kid, real(nil))
			mac := strings.LastIndexByte(good, '.') + 1
			elsewhere := sign(t, other, real(nil))
			for what, c := range map[string]struct {
				token string
				want  int
			}{
				"as it is": {good, 200}, "again": {good, 200}, "the first bits": {flip(good, mac), 401},
				"the last whole bits": {flip(good, len(good)-2), 401}, "no signature": {good[:mac], 401},
				"another's signature": {good[:mac] + elsewhere[strings.LastIndexByte(elsewhere, '.')+1:], 401},
				"too late":            {sign(t, kid, real(object{"exp": time.Now().Unix() - 3600})), 401},
			} {
				ran++
				if got := get(t, p, "/", "authorization", "Bearer "+c.token).StatusCode; got != c.want {
					t.Errorf("%s, %s, %s: %d, want %d", kid, library, what, got, c.want)
				}
			}
		}
	}
	if ran != 3*2*7 {
		t.Errorf("ran %d cases", ran)
	}
	noFailures(t, p)
}

func TestWycheproofHMAC(t *testing.T) {
	type file struct {
		TestGroups []struct {
			TagSize int
			Tests   []struct {
				TcID                   int `json:"tcId"`
				Key, Msg, Tag, Comment string
				Result                 string
			}
		}
	}
	vm := start(t, "auth", withKey(jwk{"", "HS256", b64(make([]byte, 32))}))
	for _, bits := range []int{256, 384, 512} {
		ran := 0
		for _, g := range vectors[file](t, fmt.Sprintf("hmac_sha%d_test.json", bits)).TestGroups {
			for _, c := range g.Tests {
				ran++
				mac, err := vm.HMAC(t.Context(), bits, unhex(t, c.Key), unhex(t, c.Msg))
				if err != nil {
					t.Fatal(err)
				}
				if good := bytes.Equal(mac[:g.TagSize/8], unhex(t, c.Tag)); good != (c.Result == "valid") {
					t.Errorf("SHA-%d case %d (%s): %v, want %s", bits, c.TcID, c.Comment, good, c.Result)
				}
			}
		}
		if ran != 174 {
			t.Errorf("SHA-%d: ran %d cases, want 174", bits, ran)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRFC4231 runs the identification and test vectors for HMAC-SHA-2 of RFC 4231 §4.2 to §4.8.
func TestRFC4231(t *testing.T) {
	rep := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	vm := start(t, "auth", withKey(jwk{"", "HS256", b64(make([]byte, 32))}))
	for i, c := range []struct {
		key, data []byte
		want      [3]string
	}{
		{rep(0x0b, 20), []byte("Hi There"), [3]string{
			"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
			"afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
			"87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
		}},
		{[]byte("Jefe"), []byte("what do ya want for nothing?"), [3]string{
			"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
			"af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
			"164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
		}},
		{rep(0xaa, 20), rep(0xdd, 50), [3]string{
			"773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
			"88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27",
			"fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
		}},
		{unhex(t, "0102030405060708090a0b0c0d0e0f10111213141516171819"), rep(0xcd, 50), [3]string{
			"82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
			"3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e6801dd23c4a7d679ccf8a386c674cffb",
			"b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3dba91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd",
		}},
		{rep(0x0c, 20), []byte("Test With Truncation"), [3]string{
			"a3b6167473100ee06e0c796c2955552b", "3abf34c3503b2a23a46efc619baef897", "415fad6271580a531d4179bc891d87a6",
		}},
		{rep(0xaa, 131), []byte("Test Using Larger Than Block-Size Key - Hash Key First"), [3]string{
			"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
			"4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
			"80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
		}},
		{rep(0xaa, 131), []byte("This is a test using a larger than block-size key and a larger than block-size data. The " +
			"key needs to be hashed before being used by the HMAC algorithm."), [3]string{
			"9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
			"6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5a678cc31e799176d3860e6110c46523e",
			"e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
		}},
	} {
		for j, bits := range []int{256, 384, 512} {
			mac, err := vm.HMAC(t.Context(), bits, c.key, c.data)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(mac[:len(c.want[j])/2]); got != c.want[j] {
				t.Errorf("vector %d, SHA-%d: %s, want %s", i, bits, got, c.want[j])
			}
		}
	}
}

// The key and the token of RFC 7515 appendix A.1.
const (
	rfc7515Key   = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
	rfc7515Token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)

// The parts of the example of RFC 7520 §4.4 and §4.5.
const (
	rfc7520Head    = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9."
	rfc7520Payload = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"
	rfc7520MAC     = ".s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0"
)

var rfc7520Key = jwk{"018c0ae5-4d9b-471b-bfd6-eef314bc7037", "HS256", "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"}

// TestRFC7515 runs the example of RFC 7515 appendix A.1, at a time when its token was good, and after.
func TestRFC7515(t *testing.T) {
	vm := start(t, "auth", object{"default_policy": "p", "policies": []object{{"name": "p", "jwt": object{
		"keys":            []jwk{{"", "HS256", rfc7515Key}},
		"issuers":         []string{"joe"},
		"required_claims": []object{{"claim": "http://example.com/is_root"}},
	}}}})
	for at, want := range map[int64]string{
		1300819380 - 1:  "",
		1300819380 + 59: "",
		1300819380 + 60: "marchproxy_auth_expired",
	} {
		vm.Now = time.Unix(at, 0).UnixNano()
		if got := refusedFor(send(t, vm, request("/", "authorization", "Bearer "+rfc7515Token))); got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
}

// TestRFC7520 runs the compact example of RFC 7520 §4.4, and refuses the detached one of §4.5.
func TestRFC7520(t *testing.T) {
	vm := start(t, "auth", withKey(rfc7520Key))
	// The signature holds, and then the payload turns out to be prose.
	if got := refusedFor(send(t, vm, request("/", "authorization", "Bearer "+rfc7520Head+rfc7520Payload+
		rfc7520MAC))); got != "marchproxy_auth_claims" {
		t.Errorf("§4.4: %q", got)
	}
	if got := refusedFor(send(t, vm, request("/", "authorization", "Bearer "+rfc7520Head+
		rfc7520MAC))); got != "marchproxy_auth_signature" {
		t.Errorf("§4.5: %q", got)
	}
}
