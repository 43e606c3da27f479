package forge

import (
	"fmt"
	"strconv"
	"strings"
)

// member is a name and a value, both as JSON has them: with quotes.
type member struct{ name, value string }

func object(members []member) string {
	var b strings.Builder
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(m.name + ":" + m.value)
	}
	return "{" + b.String() + "}"
}

// header is what the token's first part says: usually the truth.
func (f *Forge) header(key Key) string {
	m := []member{{`"alg"`, strconv.Quote(key.Alg)}, {`"typ"`, `"JWT"`}, {`"kid"`, strconv.Quote(key.Kid)}}
	if f.one(6) {
		m = m[:2]
	}
	if f.one(15) {
		m[0].value = pick(f, `"none"`, `"None"`, `""`, `"hs256"`, `"HS384"`, `"HS512"`, `"RS256"`, `"ES256"`, `"HS256 "`,
			`"HS\u0032\u0035\u0036"`, `256`, `null`, `["HS256"]`, `"PS256"`)
	}
	if f.one(15) {
		m = append(m, pick(f,
			member{`"kid"`, `"k2"`}, member{`"alg"`, `"none"`}, member{`"alg"`, `"HS256"`}, member{`"crit"`, `["exp"]`},
			member{`"crit"`, `[]`}, member{`"crit"`, `["b64"]`},
			member{`"b64"`, `false`}, member{`"b64"`, `true`}, member{`"jku"`, `"https://evil.example/jwks"`},
			member{`"jwk"`, `{"kty":"oct","k":"AAAA"}`}, member{`"x5u"`, `"https://evil.example"`},
			member{`"cty"`, `"JWT"`}, member{`"typ"`, `"JWT"`}, member{`"\u0061lg"`, `"none"`}, member{`"ALG"`, `"none"`},
			member{`"Alg"`, `"HS256"`}, member{`"zip"`, `"DEF"`}, member{`"nonce"`, `"n"`}))
	}
	if len(m) > 2 && f.one(20) {
		m[2].value = pick(f, `"k9"`, `""`, `null`, `7`, `"K1"`, `"k\u0031"`, `["k1"]`, `"k1\u0000"`, `"../k1"`, `"k1' or 1"`)
	}
	if f.one(25) {
		m[1].value = pick(f, `"at+jwt"`, `1`, `null`, `"jwt"`, `{}`, `""`)
	}
	f.Shuffle(len(m), func(i, j int) { m[i], m[j] = m[j], m[i] })
	return object(m)
}

// moment is a date near now or far from it, in one of the forms of numbers, or no date at all.
func (f *Forge) moment(offsets ...int64) string {
	at := f.Now + pick(f, offsets...)
	if f.Slack == 0 && f.one(6) {
		at = f.Now + pick(f, int64(-61), -60, -59, 59, 60, 61)
	}
	if !f.one(12) {
		return strconv.FormatInt(at, 10)
	}
	return pick(f, fmt.Sprintf("%d.0", at), fmt.Sprintf("%d.5", at), fmt.Sprintf("%de0", at), fmt.Sprintf("%d.25e1",
		at/10), fmt.Sprintf("%d0E-1", at), fmt.Sprintf(`"%d"`, at),
		"-1", "0", "1e40", "1e400", "253402300800", "9223372036854775808", "18446744073709551616", "-0", "0.0", "null",
		"true", "[]", "{}", `""`, `"soon"`, fmt.Sprintf("[%d]", at), fmt.Sprintf("%d.", at), fmt.Sprintf("0%d", at),
		fmt.Sprintf("+%d", at))
}

// payload is what the token claims: usually what is wanted.
func (f *Forge) payload() string {
	past := []int64{-100, -1000, -100_000}
	future := []int64{-30, 300, 3600, 1_000_000}
	m := []member{
		{`"iss"`, strconv.Quote(Issuer)},
		{`"aud"`, strconv.Quote(Audience)},
		{`"exp"`, f.moment(future...)},
		{`"sub"`, `"ann"`},
	}
	if f.one(10) {
		m[2].value = f.moment(past...)
	}
	if f.one(4) {
		m = append(m, member{`"nbf"`, f.moment(-3600, -30, 30)})
	}
	if f.one(4) {
		m = append(m, member{`"iat"`, f.moment(-3600, -30, 30)})
	}
	if f.one(20) {
		m = append(m, member{pick(f, `"nbf"`, `"iat"`), f.moment(100, 3600)})
	}
	if f.one(15) {
		m[0].value = pick(f, `"joe"`, `""`, `null`, `7`, `["https://issuer.example"]`, `"https://ISSUER.example"`,
			`"https://issuer.example/"`, `"https:\/\/issuer.example"`, `"https://issuer.example\u0000"`, `{}`)
	}
	if f.one(10) {
		m[1].value = pick(f, `"other"`, `["shop"]`, `["other","shop"]`, `["other"]`, `[]`, `null`, `""`, `["shop",1]`,
			`[["shop"]]`, `{"shop":1}`, `"SHOP"`, `"sho\u0070"`, `"shop other"`, `7`, `["shop",null]`)
	}
	if f.one(15) {
		m[3].value = pick(f, `""`, `7`, `null`, `{}`, `"\ud83d\ude00"`, `"\ud800"`, `"a\u0000b"`, "\"\xff\"", `"ä"`,
			"\"a\x01\"", `[1]`, `"`+strings.Repeat("a", f.IntN(7000))+`"`, `"`+strings.Repeat(`\u0061`, f.IntN(900))+`"`)
	}
	if f.one(15) {
		m = append(m, pick(f, member{`"exp"`, f.moment(future...)}, member{`"\u0065xp"`, f.moment(future...)}, member{
			`"Exp"`,
			`1`,
		}, member{`"EXP"`, f.moment(future...)}, member{`"iss"`, `"joe"`},
			member{`"a"`, f.nest()}, member{`"jti"`, `"x"`}, member{`"jti"`, `7`}, member{`""`, `0`}, member{`"scope"`, `"a b"`},
			member{`"sub"`, `"root"`}, member{`"roles"`, `["a",{"b":[null,true,1e9]}]`}))
	}
	if f.one(20) {
		i := f.IntN(len(m))
		m = append(m[:i:i], m[i+1:]...)
	}
	f.Shuffle(len(m), func(i, j int) { m[i], m[j] = m[j], m[i] })
	return object(m)
}

// nest is deep or wide.
func (f *Forge) nest() string {
	n := f.IntN(40)
	switch f.IntN(4) {
	case 0:
		return strings.Repeat("[", n) + strings.Repeat("]", n)
	case 1:
		return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n)
	case 2:
		return "[" + strings.Repeat("0,", n*60) + "0]"
	default:
		return strings.Repeat("[", n*60)
	}
}

// text changes JSON before it is signed, so that the signature holds and only a reader can complain.
func (f *Forge) text(s string) string {
	at := f.IntN(len(s) + 1)
	switch f.IntN(10) {
	case 0:
		return s[:at] + pick(f, " ", "\n", "\t", "\r\n", "\x00", "\x0b", "\xff", "\xc2\xa0", "\xef\xbb\xbf", "//x\n", ",",
			"\\", `"`, "{", "}", "1") + s[at:]
	case 1:
		return s + pick(f, " ", "\n", "x", "}", "{}", "\x00", ",")
	case 2:
		return pick(f, " ", "\xef\xbb\xbf", "x", "\n", "[") + s
	case 3:
		return s[:at]
	case 4:
		return pick(f, "", "null", "[]", `"x"`, "7", "{}", "true", "{", "[{}]", "\x00", "{\"a\":}", "{,}", "{\"exp\":1,}",
			"{'exp':1}", "\xff\xfe{\x00}\x00")
	case 5:
		return s[at:]
	case 6:
		return strings.ReplaceAll(s, ",", pick(f, ", ", " ,\n", ",,", ";"))
	case 7:
		return strings.ReplaceAll(s, ":", pick(f, ": ", " :", "=", "::"))
	case 8:
		if at == len(s) {
			return s
		}
		return s[:at] + string([]byte{s[at] ^ 1<<f.IntN(8)}) + s[at+1:]
	default:
		return strings.Replace(s, `"`, `"\u00`+fmt.Sprintf("%02x", f.IntN(256)), 1)
	}
}
