package translate_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpwasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/filterconfig"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// object makes one without a check of what it says, as an older version of the api may have stored it.
func object(t testing.TB, kind, name, spec string) *resource.Object {
	t.Helper()
	k, _ := resource.KindByName(kind)
	m := k.New()
	if err := protojson.Unmarshal([]byte(spec), m); err != nil {
		t.Fatal(err)
	}
	o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

const hmac = `{"kid":"a","algorithm":"HS256","secret":"0123456789abcdef0123456789abcdef"}`

// badPolicies are policies that an engine refuses, by what is wrong, each with the field that the check names.
func badPolicies() map[string][2]string {
	set := func(key string) string {
		raw, err := json.Marshal(`{"keys":[` + key + `]}`)
		if err != nil {
			panic(err)
		}
		return `{"jwt":{"jwks":` + string(raw) + `}}`
	}
	n := base64.RawURLEncoding.EncodeToString(append([]byte{0x81}, slices.Repeat([]byte{0x81}, 255)...))
	p := elliptic.P256().Params()
	x, y := base64.RawURLEncoding.EncodeToString(p.Gx.Bytes()), base64.RawURLEncoding.EncodeToString(p.Gy.Bytes())
	forward := func(key, claim, header string) string {
		return `{"jwt":{` + key + `,"forward_claims":[{"claim":[` + claim + `],"header":"` + header + `"}]}}`
	}
	token := func(end string) string {
		return `"tokens":[{"name":"t","sha256":"` + strings.Repeat("0", 64) + `","not_after":"` + end + `"}]`
	}
	const firstKey = "$.jwt.keys[0].public_key"
	ours, remote := `"keys":[`+hmac+`]`, `"remote_jwks":{"service":"idp","path":"/"}`
	out := map[string][2]string{
		"an RSA key without n":    {set(`{"kty":"RSA","e":"AQAB"}`), "$.jwt.jwks"},
		"an RSA key without e":    {set(`{"kty":"RSA","n":"` + n + `"}`), "$.jwt.jwks"},
		"bad Base64":              {set(`{"kty":"RSA","n":"!!` + n + `","e":"AQAB"}`), "$.jwt.jwks"},
		"a line end in Base64":    {set(`{"kty":"RSA","n":"` + n[:40] + `\n` + n[40:] + `","e":"AQAB"}`), "$.jwt.jwks"},
		"another curve's point":   {set(`{"kty":"EC","crv":"P-384","x":"` + x + `","y":"` + y + `"}`), "$.jwt.jwks"},
		"a curve of Bitcoin's":    {set(`{"kty":"EC","crv":"secp256k1","x":"` + x + `","y":"` + y + `"}`), "$.jwt.jwks"},
		"no point":                {set(`{"kty":"EC","crv":"P-256","x":"` + y + `","y":"` + y + `"}`), "$.jwt.jwks"},
		"a private key":           {set(`{"kty":"EC","crv":"P-256","x":"` + x + `","y":"` + y + `","d":"AQ"}`), "$.jwt.jwks"},
		"a private RSA key":       {set(`{"kty":"RSA","n":"` + n + `","e":"AQAB","p":"AQ"}`), "$.jwt.jwks"},
		"a shared key":            {set(`{"kty":"oct","k":"AAAA"}`), "$.jwt.jwks"},
		"no keys":                 {`{"jwt":{"jwks":"{\"keys\":[]}"}}`, "$.jwt.jwks"},
		"KEYS":                    {`{"jwt":{"jwks":"{\"KEYS\":[{}]}"}}`, "$.jwt.jwks"},
		"no JSON":                 {`{"jwt":{"jwks":"keys"}}`, "$.jwt.jwks"},
		"no PEM":                  {`{"jwt":{"keys":[{"kid":"a","algorithm":"RS256","public_key":"x"}]}}`, firstKey},
		"a path that is another":  {`{"jwt":{` + ours + `},"exempt_paths":[{"path":"/a/../b"}]}`, "$.exempt_paths[0].path"},
		"a token beside such":     {`{"jwt":{` + remote + `},` + token("") + `}`, "$.tokens"},
		"a dot in a claim":        {forward(remote, `"a.b"`, "x-user"), "$.jwt.forward_claims[0].claim"},
		"a time that is none":     {`{` + token("2026-13-01T00:00:00Z") + `}`, "$.tokens[0].not_after"},
		"the time of a mistake":   {`{` + token("1969-12-31T23:59:59Z") + `}`, "$.tokens[0].not_after"},
		"another digest's length": {`{"tokens":[{"name":"t","sha256":"00"}]}`, "$.tokens"},
		"much leeway":             {`{"jwt":{` + ours + `,"leeway":"3601s"}}`, "$"},
		"a claim that is nowhere": {`{"jwt":{` + ours + `,"required_claims":[{}]}}`, "$"},
	}
	for _, header := range []string{
		"cookie", "host", "authorization", "te", "upgrade", "connection", "content-length", "transfer-encoding",
		"x-envoy-peer",
	} {
		const at = "$.jwt.forward_claims[0].header"
		out["the header "+header] = [2]string{forward(ours, `"sub"`, header), at}
		out["the header "+header+", of a public key's"] = [2]string{forward(remote, `"sub"`, header), at}
	}
	return out
}

// TestBadPolicies: what an engine refuses is refused at the write, with the field. Where it is in the configuration all
// the same, this policy refuses everything, and the others are what they would be without it.
func TestBadPolicies(t *testing.T) {
	route := func(host, policy string) *resource.Object {
		spec := fmt.Sprintf(`{"hosts":[%q],"auth_policy":%q,"direct_response":{"status":200}}`, host, policy)
		return object(t, resource.KindRoute, policy, spec)
	}
	ours := `{"jwt":{"keys":[` + hmac + `],"forward_claims":[{"claim":["sub"],"header":"x-one"}]}}`
	theirs := `{"jwt":{"remote_jwks":{"service":"idp","path":"/"},"required_claims":[{"claim":["a"]}],
		"forward_claims":[{"claim":["sub"],"header":"x-two"}]}}`
	configOf := func(b *translate.Builder, name string) *translate.Resource {
		return b.Get(translate.Key{Type: translate.TypeExtension, Name: name})
	}
	for what, c := range badPolicies() {
		t.Run(what, func(t *testing.T) {
			st := config.New()
			st.Apply([]*resource.Object{
				gatewayObject(t), object(t, resource.KindService, "idp", `{"endpoints":[{"host":"192.0.2.1","port":80}]}`),
				object(t, resource.KindAuthPolicy, "ours", ours), object(t, resource.KindAuthPolicy, "theirs", theirs),
				route("a.test", "ours"), route("b.test", "theirs"), route("c.test", "bad"),
			})
			changes, _ := st.Apply([]*resource.Object{object(t, resource.KindAuthPolicy, "bad", c[0])})
			var paths []string
			for _, p := range translate.Check(st, changes) {
				paths = append(paths, p.Path)
			}
			if !slices.Contains(paths, c[1]) {
				t.Errorf("refused at %q, want %s", paths, c[1])
			}
			b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: known})
			_, problems := b.Rebuild(st)
			// What is only a mistake of whoever wrote it no engine refuses.
			closed := what != "a token beside such" && what != "a dot in a claim" && !strings.Contains(what, "time")
			if closed != (len(problems) == 1 && problems[0].Object.Name == "bad") {
				t.Errorf("problems %v", problems)
			}
			st.Apply([]*resource.Object{object(t, resource.KindAuthPolicy, "bad", tokens(0, 1))})
			good := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: known})
			good.Rebuild(st)
			for _, name := range []string{"marchproxy.auth", "marchproxy.jwt", "marchproxy.claims"} {
				r := configOf(b, name)
				valid(t, r)
				for _, policy := range []string{"ours", "theirs"} {
					if r.Parts[policy] != configOf(good, name).Parts[policy] {
						t.Errorf("%s: %s is another because of it", name, policy)
					}
				}
				if _, open := r.Parts["bad"]; open && closed {
					t.Errorf("%s: it is open", name)
				}
			}
		})
	}
}

// textOf is a filter's configuration.
func textOf(t testing.TB, r *translate.Resource) string {
	t.Helper()
	var c corev3.TypedExtensionConfig
	var w httpwasmv3.Wasm
	text := &wrapperspb.StringValue{}
	err := errors.Join(r.Body.UnmarshalTo(&c), c.GetTypedConfig().UnmarshalTo(&w))
	if err = errors.Join(err, w.GetConfig().GetConfiguration().UnmarshalTo(text)); err != nil {
		t.Fatal(r.Name, err)
	}
	return text.GetValue()
}

// tokens is a policy with so many opaque tokens.
func tokens(from, n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`{"name":"t%d","sha256":"%064x"}`, i, from+i))
	}
	return `{"tokens":[` + strings.Join(out, ",") + `]}`
}

// TestTooMuch: a gateway whose policies would be more than its filter reads is refused, whichever write would make them
// so, and revocations are not. Where they are so all the same, the largest and newest is closed.
func TestTooMuch(t *testing.T) {
	st := config.New()
	st.Apply([]*resource.Object{gatewayObject(t)})
	put := func(objects ...*resource.Object) ([]config.Problem, func()) {
		changes, undo := st.Apply(objects)
		return translate.Check(st, changes), undo
	}
	policy := func(i, n int) *resource.Object {
		o := object(t, resource.KindAuthPolicy, fmt.Sprint("p", i), tokens(1000*i, n))
		o.Revision = int64(100 + i)
		return o
	}
	route := func(i int) *resource.Object {
		spec := fmt.Sprintf(`{"hosts":["h%d.test"],"auth_policy":"p%d","direct_response":{"status":200}}`, i, i)
		return object(t, resource.KindRoute, fmt.Sprint("r", i), spec)
	}
	full := 0
	for i := range 70 {
		if p, _ := put(policy(i, 1000)); len(p) > 0 {
			t.Fatal("a policy that no gateway needs: ", p)
		}
		if p, undo := put(route(i)); len(p) > 0 {
			at := p[0].Path + " " + p[0].Rule
			if at != "$.auth_policy auth_policy.size" || !strings.Contains(p[0].Message, "gateway default") {
				t.Errorf("%+v", p)
			}
			undo()
			break
		}
		full = i
	}
	if full < 40 || full > 60 {
		t.Fatalf("%d policies of 1,000 tokens have room", full)
	}
	next := full + 1
	g := `{"listeners":[{"name":"http","port":10000}],"auth_policy":"p` + fmt.Sprint(next) + `"}`
	p, undo := put(object(t, resource.KindGateway, resource.DefaultGateway, g))
	if undo(); len(p) != 1 || p[0].Path != "$.auth_policy" {
		t.Errorf("as the gateway's own: %v", p)
	}
	// Forced past the check: one more, the newest.
	st.Apply([]*resource.Object{policy(next, 1000), route(next)})
	b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: known})
	closed := func(problems []config.Problem, want string) {
		t.Helper()
		if len(problems) != 1 || problems[0].Object.Name != want {
			t.Errorf("closed: %v, want %s", problems, want)
		}
		r := b.Get(translate.Key{Type: translate.TypeExtension, Name: "marchproxy.auth"})
		if _, open := r.Parts[want]; open || len(r.Parts) != next {
			t.Errorf("%d policies are open, %s among them: %v", len(r.Parts), want, open)
		}
		if why := filterconfig.Refused("auth", []byte(textOf(t, r))); why != "" {
			t.Errorf("the filter refuses it: %s", why)
		}
	}
	_, problems := b.Rebuild(st)
	closed(problems, fmt.Sprint("p", next))
	// A revocation in another one passes the check, and is in the filter config; more tokens are refused.
	smaller := policy(3, 999)
	smaller.Revision = 1000
	changes, _ := st.Apply([]*resource.Object{smaller})
	if p := translate.Check(st, changes); len(p) > 0 {
		t.Errorf("a revocation is refused: %v", p)
	}
	_, problems = b.Update(st, changes, b.Policies())
	closed(problems, fmt.Sprint("p", next))
	r := b.Get(translate.Key{Type: translate.TypeExtension, Name: "marchproxy.auth"})
	if strings.Contains(textOf(t, r), fmt.Sprintf("%064x", 3999)) {
		t.Error("the revoked token is in the filter config")
	}
	if p, undo := put(policy(3, 1000)); len(p) != 1 || p[0].Path != "$.tokens" || p[0].Rule != "auth_policy.size" {
		t.Errorf("a token more: %v", p)
	} else {
		undo()
	}
}

// TestLargestText: whatever stands in a text of the largest size, the filter reads it.
func TestLargestText(t *testing.T) {
	claim := `{"claim":["a"],"values":["` + strings.Repeat(`a","`, 900_000) + `a"]}`
	key := `{"kid":"a","alg":"HS256","k":"` + strings.Repeat("A", 43) + `"}`
	text := `{"policies":[{"name":"p","jwt":{"keys":[` + key + `],"required_claims":[` + claim + `]}}]}`
	text += strings.Repeat(" ", 4_000_000-len(text))
	if why := filterconfig.Refused("auth", []byte(text)); why != "" {
		t.Error(why)
	}
}

// TestEndOf1970: a token that ended when the filters begin to count has ended; one without an end has none.
func TestEndOf1970(t *testing.T) {
	st := config.New()
	token := func(c, more string) string {
		return fmt.Sprintf(`{"name":%q,"sha256":%q%s}`, c, strings.Repeat(c, 64), more)
	}
	then, before := `,"not_after":"1970-01-01T00:00:00Z"`, `,"not_after":"1960-01-01T00:00:00Z"`
	policy := `{"tokens":[` + token("a", then) + `,` + token("b", before) + `,` + token("c", "") + `]}`
	st.Apply([]*resource.Object{
		gatewayObject(t), object(t, resource.KindAuthPolicy, "p", policy),
		object(t, resource.KindRoute, "r", `{"auth_policy":"p","direct_response":{"status":200}}`),
	})
	b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: known})
	b.Rebuild(st)
	text := textOf(t, b.Get(translate.Key{Type: translate.TypeExtension, Name: "marchproxy.auth"}))
	if n := strings.Count(text, `"not_after":0`); n != 2 || strings.Count(text, "not_after") != 2 {
		t.Errorf("%s", text)
	}
}

// TestLeaving: what the filter configs hold for routes that Envoys may still have is told to the builder and by it, and
// depends on nothing that it has built before: one from nothing that is told the same builds the same.
func TestLeaving(t *testing.T) {
	theirs := `{"jwt":{"remote_jwks":{"service":"idp","path":"/"},"required_claims":[{"claim":["a"]}]}}`
	route := func(name, policy string) *resource.Object {
		spec := fmt.Sprintf(`{"hosts":["%s.test"],"auth_policy":%q,"direct_response":{"status":200}}`, name, policy)
		return object(t, resource.KindRoute, name, spec)
	}
	st := config.New()
	changes, _ := st.Apply([]*resource.Object{
		gatewayObject(t), object(t, resource.KindService, "idp", `{"endpoints":[{"host":"192.0.2.1","port":80}]}`),
		object(t, resource.KindAuthPolicy, "gone", tokens(0, 1)), object(t, resource.KindAuthPolicy, "other", tokens(1, 1)),
		object(t, resource.KindAuthPolicy, "stays", tokens(2, 1)),
		route("a", "gone"), route("b", "other"), route("c", "stays"),
	})
	b := builder(resource.DefaultGateway)
	b.Update(st, changes, translate.Policies{})
	if p := b.Policies(); len(p.Named) != 3 || len(p.Leaving) != 0 {
		t.Fatalf("at first: %v", p)
	}
	// A policy loses its route, another one its engine.
	changes, _ = st.Apply([]*resource.Object{
		resource.Tombstone(route("a", "").Ref(), 2), object(t, resource.KindAuthPolicy, "other", theirs),
	})
	d, _ := b.Update(st, changes, b.Policies())
	leaving := b.Policies().Leaving
	if names := slices.Sorted(maps.Keys(leaving)); !slices.Equal(names, []string{"gone", "other"}) {
		t.Errorf("leaving: %v", names)
	}
	ours := b.Get(translate.Key{Type: translate.TypeExtension, Name: "marchproxy.auth"})
	if !slices.Contains(d.Upserts, ours) {
		t.Error("the filter config is not among what has changed")
	}
	if !ours.Leaving["gone"] || !ours.Leaving["other"] || ours.Leaving["stays"] || len(ours.Parts) != 3 {
		t.Errorf("in the filter config: %v, leaving %v", ours.Parts, ours.Leaving)
	}
	fresh := builder(resource.DefaultGateway)
	fresh.Rebuild(st)
	fresh.Update(st, nil, translate.Policies{Leaving: leaving})
	same(t, "told what is leaving", fresh, b)
	// A change of something else leaves them, also where it builds the filter config again.
	changes, _ = st.Apply([]*resource.Object{object(t, resource.KindAuthPolicy, "stays", tokens(3, 1))})
	b.Update(st, changes, b.Policies())
	if got := b.Policies().Leaving; !maps.Equal(got, leaving) {
		t.Errorf("after a change of another: %v", got)
	}
	// One that is named again is what the state says, and leaves no more.
	changes, _ = st.Apply([]*resource.Object{route("a", "gone")})
	b.Update(st, changes, b.Policies())
	if names := slices.Sorted(maps.Keys(b.Policies().Leaving)); !slices.Equal(names, []string{"other"}) {
		t.Errorf("after one came back: %v", names)
	}
	b.Update(st, nil, translate.Policies{})
	fresh = builder(resource.DefaultGateway)
	fresh.Rebuild(st)
	same(t, "told that nothing is", b, fresh)
	if len(b.Policies().Leaving) > 0 {
		t.Errorf("still leaving: %v", b.Policies().Leaving)
	}
}
