package main

import (
	"fmt"
	"time"

	"github.com/marchproxy/marchproxy/test/wasm/envoy"
	"github.com/marchproxy/marchproxy/test/wasm/forge"
)

type object = map[string]any

// setup is one Envoy.
type setup struct {
	name    string
	filters []envoy.Filter
	native  []any
	counted bool // by Envoy itself
	// policy is the route's; without one it has the gateway's.
	policy string
}

// variant is one line of the results: an Envoy and the requests it gets.
type variant struct {
	name     string
	setup    int
	requests [][]byte
}

const rotating = 1000

// setups gives the Envoys: the same policy for all that check tokens. jwt_authn takes the token off the request by
// default, so the filter does it too where it says so. The filters are configured as the control plane does it for
// a gateway with that policy, as jwt_authn has it for all paths, and a license with a gated path: neither auth nor
// license looks at the route, since none names a policy or a feature; "of the route" is auth where one does.
func setups() []setup {
	key := forge.Keys[0]
	k := key.Base64()
	provider := func(more object) []any {
		p := object{
			"issuer": forge.Issuer, "audiences": []string{forge.Audience}, "require_expiration": true,
			"forward": true,
		}
		for name, v := range more {
			p[name] = v
		}
		return []any{envoy.JWTAuthn(p, []map[string]any{{"kty": "oct", "kid": key.Kid, "alg": key.Alg, "k": k}})}
	}
	auth := func(cache int, strip, perRoute bool) envoy.Filter {
		return envoy.Filter{Name: "auth", Configuration: object{
			"per_route": perRoute, "default_policy": "p",
			"cache_entries": cache, "policies": []object{{
				"name": "p", "strip": strip,
				"jwt": object{
					"keys": []object{{"kid": key.Kid, "alg": key.Alg, "k": k}}, "issuers": []string{forge.Issuer},
					"audiences": []string{forge.Audience},
				},
			}},
		}}
	}
	metrics := envoy.Filter{Name: "metrics", Configuration: object{}}
	license := envoy.Filter{Name: "license", Configuration: object{
		"features": []string{"multi-cloud"},
		"gates":    []object{{"path": "/api/v1/multi-cloud", "feature": "multi-cloud"}},
	}}
	return []setup{
		{name: "no filter"},
		{name: "jwt_authn", native: provider(nil)},
		{
			name:   "jwt_authn, its cache on",
			native: provider(object{"jwt_cache_config": object{"jwt_cache_size": 2 * rotating}}),
		},
		{name: "auth, no cache", filters: []envoy.Filter{auth(0, false, false)}},
		{name: "auth", filters: []envoy.Filter{auth(2*rotating, false, false)}},
		{name: "jwt_authn, strips", native: provider(object{"forward": false})},
		{name: "auth, strips", filters: []envoy.Filter{auth(2*rotating, true, false)}},
		{name: "metrics", filters: []envoy.Filter{metrics}},
		{name: "native metrics", counted: true},
		{name: "license", filters: []envoy.Filter{license}},
		{name: "metrics, license, auth", filters: []envoy.Filter{metrics, license, auth(2*rotating, false, false)}},
		{name: "native metrics, license, auth", counted: true, filters: []envoy.Filter{
			license,
			auth(2*rotating, false, false),
		}},
		{name: "auth of the route", filters: []envoy.Filter{auth(2*rotating, false, true)}, policy: "p"},
		{name: "metrics, license, auth of the route", filters: []envoy.Filter{
			metrics, license,
			auth(2*rotating, false, true),
		}, policy: "p"},
	}
}

// variants gives the lines of the table: those that check tokens with one token, and with many in turn.
func variants(all []setup) []variant {
	var out []variant
	one, many := requests(1), requests(rotating)
	for i, s := range all {
		out = append(out, variant{s.name + ", 1 token", i, one})
		switch s.name {
		case "no filter", "metrics", "native metrics", "license", "auth of the route", "metrics, license, auth of the route",
			"jwt_authn, strips", "auth, strips":
		default:
			out = append(out, variant{fmt.Sprintf("%s, %d tokens", s.name, rotating), i, many})
		}
	}
	return out
}

// requests makes requests that differ in their tokens only, as a browser might send them.
func requests(n int) [][]byte {
	var out [][]byte
	for i := range n {
		token := forge.Sign(forge.Keys[0], `{"alg":"HS256","typ":"JWT","kid":"k1"}`,
			fmt.Sprintf(`{"iss":"%s","aud":"%s","sub":"user-%06d","iat":%d,"exp":%d,"roles":["reader","writer"]}`, forge.Issuer,
				forge.Audience, i, time.Now().Unix(), time.Now().Add(2*time.Hour).Unix()))
		out = append(out, fmt.Appendf(nil, "GET /api/things?page=%d HTTP/1.1\r\nhost: shop.example.com\r\nuser-agent: "+
			"bench/1.0\r\naccept: */*\r\naccept-language: en\r\naccept-encoding: gzip\r\nauthorization: Bearer %s\r\n\r\n",
			i%10, token))
	}
	return out
}
