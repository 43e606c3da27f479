package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/marchproxy/marchproxy/test/wasm/forge"
)

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// oddities names what is unusual about a case, found without the filter and without the libraries that are
// compared: an explanation of a disagreement must stand on one of them.
func oddities(c forge.Case, now int64) map[string]bool {
	odd := make(map[string]bool)
	var values []string
	for _, kv := range c.Headers {
		if strings.EqualFold(kv[0], "authorization") {
			values = append(values, kv[1])
		}
	}
	odd["two headers"] = len(values) > 1
	odd["token in the query"] = strings.Contains(c.Target, "access_token=")
	if len(values) == 0 {
		return odd
	}
	value := values[0]
	scheme, rest, _ := strings.Cut(value, " ")
	odd["scheme in other case"] = scheme != "Bearer" && strings.EqualFold(scheme, "bearer")
	token := strings.TrimLeft(rest, " ")
	odd["more spaces"] = token != rest
	if !strings.EqualFold(scheme, "bearer") {
		odd["no scheme"] = true
		// Envoy looks for the scheme anywhere in the value.
		if _, after, found := strings.Cut(value, "Bearer "); found {
			token = strings.TrimLeft(after, " ")
		}
	}
	end := strings.IndexFunc(token, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.", r)
	})
	if end >= 0 {
		odd["junk after the token"] = true
		token = token[:end]
	}
	odd["longer than 8192"] = len(rest) > 8192
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		odd["not three parts"] = true
		return odd
	}
	var texts [3][]byte
	for i, part := range parts {
		b, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			odd["not Base64url"] = true
			return odd
		}
		odd["leftover bits"] = odd["leftover bits"] || encode(b) != part
		texts[i] = b
	}
	document(odd, "header", texts[0], 4, 64)
	document(odd, "claims", texts[1], 16, 1024)
	members(odd, texts[0], texts[1], now)
	return odd
}

// document looks at one JSON text as such.
func document(odd map[string]bool, what string, text []byte, depth, values int) {
	odd[what+" not UTF-8"] = !utf8.Valid(text)
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	deepest, count, twice, err := walk(d, 0)
	odd[what+" not JSON"] = err != nil || !json.Valid(text)
	odd[what+" names a member twice"] = twice
	odd[what+" too deep or too large"] = deepest > depth || count > values
	odd[what+" lone surrogate"] = loneSurrogate(text)
	odd["number beyond a double"] = odd["number beyond a double"] || beyondDouble(text)
}

// beyondDouble says whether a number, wherever it stands, is larger than the largest double.
func beyondDouble(text []byte) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		t, err := d.Token()
		if err != nil {
			return false
		}
		if n, number := t.(json.Number); number {
			if _, err := n.Float64(); err != nil {
				return true
			}
		}
	}
}

func walk(d *json.Decoder, depth int) (deepest, count int, twice bool, err error) {
	t, err := d.Token()
	if err != nil {
		return depth, 1, false, err
	}
	delim, nested := t.(json.Delim)
	if !nested {
		return depth, 1, false, nil
	}
	deepest, count = depth+1, 1
	seen := make(map[string]bool)
	for d.More() {
		if delim == '{' {
			name, err := d.Token()
			if err != nil {
				return deepest, count, twice, err
			}
			s, _ := name.(string)
			twice = twice || seen[s]
			seen[s] = true
			count++
		}
		below, n, t, err := walk(d, depth+1)
		deepest, count, twice = max(deepest, below), count+n, twice || t
		if err != nil {
			return deepest, count, twice, err
		}
	}
	if _, err := d.Token(); err != nil && !errors.Is(err, io.EOF) {
		return deepest, count, twice, err
	}
	return deepest, count, twice, nil
}

// loneSurrogate looks for \ud800 to \udfff that are no pair.
func loneSurrogate(text []byte) bool {
	s := strings.ToLower(string(text))
	for {
		_, after, found := strings.Cut(s, `\ud`)
		if !found || len(after) < 3 {
			return false
		}
		if after[0] >= '8' {
			if after[0] > 'b' || !strings.HasPrefix(after[3:], `\ud`) || len(after) < 7 || after[6] < 'c' {
				return true
			}
			after = after[6:]
		}
		s = after
	}
}

// members looks at what the two documents say.
func members(odd map[string]bool, header, claims []byte, now int64) {
	var h, c map[string]any
	d := json.NewDecoder(bytes.NewReader(claims))
	d.UseNumber()
	if json.Unmarshal(header, &h) == nil {
		for _, name := range []string{"crit", "b64", "jwk", "kid"} {
			_, odd["has "+name] = h[name]
		}
		for _, name := range []string{"alg", "kid", "typ", "cty", "jku", "x5u", "nonce", "zip"} {
			v, there := h[name]
			s, text := v.(string)
			odd[name+" no string"] = there && !text
			odd[name+" empty"] = text && s == ""
		}
	}
	for name := range h {
		folded(odd, "header", name, "alg", "kid", "typ")
	}
	if d.Decode(&c) != nil {
		return
	}
	for name := range c {
		folded(odd, "claims", name, "exp", "nbf", "iat", "iss", "aud")
	}
	for _, name := range []string{"exp", "nbf", "iat"} {
		v, there := c[name]
		n, number := v.(json.Number)
		odd[name+" no number"] = there && !number
		odd["date not written as a whole number"] = odd["date not written as a whole number"] || number &&
			strings.ContainsAny(string(n), ".eE")
		f, err := n.Float64()
		away := math.Abs(f - float64(now))
		odd["at the very second"] = odd["at the very second"] || away > forge.Leeway-1 && away < forge.Leeway+1
		odd["date out of range"] = odd["date out of range"] || number && (err != nil || f < 0 || f > 253402300799 ||
			strings.HasPrefix(string(n), "-"))
	}
	_, odd["has iat"] = c["iat"]
	for _, name := range []string{"iss", "sub", "jti"} {
		v, there := c[name]
		_, text := v.(string)
		odd[name+" no string"] = there && !text
	}
	list, many := c["aud"].([]any)
	for _, v := range list {
		_, text := v.(string)
		odd["aud not only strings"] = odd["aud not only strings"] || !text
	}
	_, text := c["aud"].(string)
	odd["aud not only strings"] = odd["aud not only strings"] || !many && !text
}

func folded(odd map[string]bool, what, name string, known ...string) {
	for _, k := range known {
		if name != k && strings.EqualFold(name, k) {
			odd[what+" name in other case"] = true
		}
	}
}
