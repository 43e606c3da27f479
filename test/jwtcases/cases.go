// Package jwtcases is one table of requests with tokens, and of what each engine of an AuthPolicy answers: cases.yaml.
// Both engines are asked through the real proxy by TestJWT of test/security, and the filter alone, with a clock that
// stands still, by TestCases of test/wasm.
package jwtcases

import (
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed cases.yaml
var table []byte

// Answer is what an engine makes of a request.
type Answer string

// Answers of the engines, beside OK what the body of a refusal gives as its reason.
const (
	OK      Answer = "ok"
	Missing Answer = "missing_credentials"
	Expired Answer = "expired_token"
	Invalid Answer = "invalid_token"
	Claims  Answer = "insufficient_claims"
	// Proxy is a request that Envoy itself refuses, before an engine sees it or after.
	Proxy Answer = "proxy"
)

// Case is one request.
type Case struct {
	Name string `json:"name"`
	// Why it is answered so, where the name does not say it.
	Why string `json:"why"`

	// Header and Claims are the texts of a token's first parts, the usual ones where absent. With changes the usual
	// claims, each JSON, or taken away where empty.
	Header *string           `json:"header"`
	Claims *string           `json:"claims"`
	With   map[string]string `json:"with"`
	// Sign is the key that signs it, main where absent.
	Sign string `json:"sign"`
	// Mangle is what happens to the signature then, and Form how the parts are written.
	Mangle, Form string
	// Token puts the parts together, HEADER.CLAIMS.SIGNATURE where absent; OTHERS are claims of somebody else.
	Token string `json:"token"`
	// Send are the lines of the request's header, and Path is its target.
	Send *[]string `json:"send"`
	Path string    `json:"path"`

	// Only says the one engine that it is for.
	Only string `json:"only"`
	// Still is a case of a date so near to where the answer changes that the clock must stand still.
	Still bool `json:"still"`
	// Filter is the filter's own word for its reason, and Native what jwt_authn answers, the same where absent. Where they
	// differ, Differs says why.
	Filter  string `json:"filter"`
	Native  string `json:"native"`
	Differs string `json:"differs"`
}

// Read gives the table, and an error where it contradicts itself.
func Read() ([]Case, error) {
	var all []Case
	if err := yaml.UnmarshalStrict(table, &all); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i, c := range all {
		if c.Native != "" {
			if all[i].Native = string(answers[c.Native]); all[i].Native == "" {
				return nil, fmt.Errorf("%s: native: %q is no answer", c.Name, c.Native)
			}
		}
		c = all[i]
		differ := c.Only == "" && c.OfFilter() != c.OfNative()
		switch {
		case seen[c.Name]:
			return nil, fmt.Errorf("%s stands there twice", c.Name)
		case c.Only != "" && c.Only != "filter" && c.Only != "native":
			return nil, fmt.Errorf("%s: only: %q is no engine", c.Name, c.Only)
		case c.Only != "native" && c.Filter == "" || c.Only == "native" && (c.Native == "" || c.Filter != ""):
			return nil, fmt.Errorf("%s lacks an answer, or has one of an engine that it is not for", c.Name)
		case differ != (c.Differs != ""):
			return nil, fmt.Errorf("%s: where the engines differ, and only there, differs says why", c.Name)
		}
		seen[c.Name] = true
	}
	return all, nil
}

// answers by the words of the table.
var answers = map[string]Answer{
	"ok": OK, "missing": Missing, "expired": Expired, "invalid": Invalid, "claims": Claims,
	"proxy": Proxy,
}

// OfFilter is what a client gets of our filter.
func (c Case) OfFilter() Answer {
	switch c.Filter {
	case "ok":
		return OK
	case "proxy":
		return Proxy
	case "missing", "scheme":
		return Missing
	case "expired":
		return Expired
	case "claim_required", "claim_forward":
		return Claims
	}
	return Invalid
}

// OfNative is what a client gets of jwt_authn.
func (c Case) OfNative() Answer {
	if c.Native != "" {
		return Answer(c.Native)
	}
	return c.OfFilter()
}

// What the policy of the cases asks for, beside its keys.
const (
	Rules = `"issuers":["joe","https://id.example.com"],"audiences":["shop"],` +
		`"required_claims":[{"claim":["scope"],"values":["read"],"words":true}],` +
		`"forward_claims":[{"claim":["sub"],"header":"x-user"}]`
	goodHeader = `{"alg":"ALG","kid":"KID","typ":"JWT"}`
)

// usual are the claims of a good token, in their order.
func usual() (names []string, claims map[string]string) {
	return []string{"iss", "aud", "sub", "scope", "exp"}, map[string]string{
		"iss": `"joe"`, "aud": `"shop"`, "sub": `"ann"`, "scope": `"read"`, "exp": "NOW+300",
	}
}

func (c Case) claims() string {
	if c.Claims != nil {
		return *c.Claims
	}
	names, claims := usual()
	for _, name := range slices.Sorted(maps.Keys(c.With)) {
		if _, there := claims[name]; !there {
			names = append(names, name)
		}
		claims[name] = c.With[name]
	}
	var out []string
	for _, name := range names {
		if claims[name] != "" {
			out = append(out, strconv.Quote(name)+":"+claims[name])
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

var date = regexp.MustCompile(`NOW([+-][0-9]+(?:\.[0-9]+)?)?`)

// Request is a case's request for an engine at a time: its target, and the lines of its header.
func (c Case) Request(e *Engine, now int64) (path string, lines []string, err error) {
	k, err := e.key(c.Sign)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	fill := func(text string) string {
		text = date.ReplaceAllStringFunc(text, func(m string) string {
			add, fraction, whole := strings.Cut(strings.TrimPrefix(m, "NOW"), ".")
			n, _ := strconv.ParseInt("0"+strings.TrimLeft(add, "+-"), 10, 64) // digits
			if strings.HasPrefix(add, "-") {
				n = -n
				if whole { // NOW-1.75 is one less than NOW-1, and a quarter more
					return strconv.FormatInt(now+n-1, 10) + "." + complement(fraction)
				}
			}
			if whole {
				return strconv.FormatInt(now+n, 10) + "." + fraction
			}
			return strconv.FormatInt(now+n, 10)
		})
		return strings.NewReplacer(
			`"alg":"alg"`, `"alg":"`+strings.ToLower(k.alg)+`"`, "ALG", k.alg, "KID", k.kid, "JWK", k.jwk, "LONG",
			strings.Repeat("x", 4000), "BYTE", "\xff",
		).Replace(text)
	}
	header := goodHeader
	if c.Header != nil {
		header = *c.Header
	}
	header, claims := fill(header), fill(c.claims())
	if strings.Contains(claims, "TOKEN") {
		inner := Case{}
		whole, _, err := inner.parts(e, fill(goodHeader), fill(inner.claims()))
		if err != nil {
			return "", nil, err
		}
		claims = strings.ReplaceAll(claims, "TOKEN", strings.Join(whole, "."))
	}
	parts, others, err := c.parts(e, header, claims)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	words := strings.NewReplacer("HEADER", parts[0], "CLAIMS", parts[1], "SIGNATURE", parts[2], "OTHERS", others)
	template := c.Token
	if template == "" {
		template = "HEADER.CLAIMS.SIGNATURE"
	}
	token := words.Replace(template)
	send := []string{"Authorization: Bearer TOKEN"}
	if c.Send != nil {
		send = *c.Send
	}
	for _, line := range send {
		lines = append(lines, strings.ReplaceAll(words.Replace(line), "TOKEN", token))
	}
	path = "/"
	if c.Path != "" {
		path = strings.ReplaceAll(c.Path, "TOKEN", token)
	}
	return path, lines, nil
}

// complement of a fraction's digits, so that both are 1.
func complement(fraction string) string {
	n, _ := strconv.ParseInt(fraction, 10, 64) // digits
	all := int64(1)
	for range fraction {
		all *= 10
	}
	return fmt.Sprintf("%0*d", len(fraction), all-n)
}
