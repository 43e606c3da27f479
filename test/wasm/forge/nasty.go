package forge

import (
	"strings"

	"github.com/marchproxy/marchproxy/test/wasm/host"
)

// Nasty makes the case of that number into one that a client sends to break something: any bytes in names and
// values, values of 60 KB, hundreds of headers, the same header again, deep and wide JSON in the token.
func (f *Forge) Nasty(seed, number uint64) Case {
	c := f.Case(seed, number)
	for range 1 + f.IntN(3) {
		at := f.IntN(len(c.Headers) + 1)
		name := pick(f, "authorization", "x-auth-sub", "x-license-key", "cookie", "x", "x-forwarded-for",
			"user-agent", f.any(20))
		var value string
		switch f.IntN(8) {
		case 0:
			value = strings.Repeat(pick(f, "a", "\xff", ".", "eyJ", "%", "\xc3\xa4"), f.IntN(20000))
			value = value[:min(len(value), 60_000)]
		case 1:
			value = "Bearer " + strings.Repeat(pick(f, "a.", "e30.", "..", "A"), f.IntN(4500))
		case 2:
			value = "Bearer " + Sign(Keys[0], `{"alg":"HS256"}`, f.nest())
		case 3:
			value = "Bearer " + Sign(Keys[0], f.nest(), "{}")
		case 4: // the same again
			if len(c.Headers) > 0 {
				name, value = c.Headers[0][0], c.Headers[0][1]
			}
		case 5:
			for range f.IntN(200) {
				c.Headers = append(c.Headers, [2]string{pick(f, "x-many", "x-auth-sub", "cookie", f.any(8)), f.any(10)})
			}
		default:
			value = f.any(f.IntN(300))
		}
		c.Headers = append(c.Headers[:at:at], append(host.Headers{{name, value}}, c.Headers[at:]...)...)
	}
	if f.one(4) {
		c.Target = "/" + f.any(f.IntN(100))
	}
	if f.one(12) {
		c.Target = f.noText(c.Target)
		for i := range c.Headers {
			c.Headers[i][1] = f.noText(c.Headers[i][1])
		}
	}
	return c
}

// noText puts bytes into a value that make it invalid as UTF-8: a byte that never occurs, the start of a character
// without its end, an end without a start, a character written too long, half a surrogate pair.
func (f *Forge) noText(s string) string {
	at := f.IntN(len(s) + 1)
	return s[:at] + pick(f, "\xff", "\xc3", "\x80", "\xc0\xaf", "\xed\xa0\x80", "\xf0\x9f\x98") + s[at:]
}

// Everywhere makes every header invalid as UTF-8, the pseudo-headers and the names too.
func (f *Forge) Everywhere(h host.Headers) host.Headers {
	out := make(host.Headers, 0, len(h))
	for _, kv := range h {
		name := kv[0]
		if f.one(4) && !strings.HasPrefix(name, ":") {
			name = f.noText(name)
		}
		out = append(out, [2]string{name, f.noText(kv[1])})
	}
	return out
}

// any is n bytes of any kind, or n that are likely to matter.
func (f *Forge) any(n int) string {
	const likely = "ab.-_:;,=/%\\\"{}[]0 \t"
	b := make([]byte, n)
	for i := range b {
		if f.one(2) {
			b[i] = byte(f.IntN(256))
		} else {
			b[i] = likely[f.IntN(len(likely))]
		}
	}
	return string(b)
}
