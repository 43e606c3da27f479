package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate/arbitrary"
)

// draws makes decisions, the same for the same seed.
type draws struct{ *rand.Rand }

func (d draws) one(in int) bool { return d.IntN(in) == 0 }

func pick[T any](d draws, from []T) T { return from[d.IntN(len(from))] }

// some are up to n of a list, each once.
func some(d draws, n int, from []string) []string {
	out := slices.Clone(from)
	d.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(1+d.IntN(n), len(out))]
}

// bytes are for package arbitrary.
func (d draws) bytes() []byte {
	out := make([]byte, 300+d.IntN(600))
	for i := range out {
		out[i] = byte(d.UintN(256))
	}
	return out
}

// The words of configurations and requests are few, so that these meet.
var (
	hosts = []string{
		"a.example.com", "b.example.com", "*.example.com", "*", "*.b.example.com", "_x.example.com", "1.2.3.4", "a",
		"xn--bcher-kva.example", "[2001:db8::1]", "strict.example.com", "*.strict.example.com", "x.strict.example.com",
	}
	prefixes = []string{"/", "/a", "/a/", "/a/b", "/b", "//", "/%2e", "/a%", "/a;b=c", "/.", "/%25", "/A", "/~a"}
	// secret is that of every key with a shared secret; package arbitrary says so.
	secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	// opaque are the opaque tokens that policies may have.
	opaque = []string{"c2VjcmV0LXRva2VuLW9mLWEtbWFjaGluZQ==", "YW5vdGhlci10b2tlbi1vZi1hLW1hY2hpbmU="}
)

// configuration is one that was drawn, as the API's own checks take it.
type configuration struct {
	objects []*resource.Object
	routes  []*configv1.Route
	// what requests are drawn from
	policies map[string]*configv1.AuthPolicy
	gates    []string
}

// draw makes a configuration around the objects that every one has.
func draw(d draws, fixed []*resource.Object, gateway *configv1.Gateway) *configuration {
	c := &configuration{policies: map[string]*configv1.AuthPolicy{}}
	st := config.New()
	st.Apply(fixed)
	revision := int64(1000)
	take := func(kind, name string, m proto.Message) proto.Message {
		if m == nil {
			return nil
		}
		o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
		if err != nil || len(resource.Validate(m)) > 0 {
			return nil
		}
		revision++
		o.Revision = revision
		if o, _ = arbitrary.Accept(st, o); o == nil {
			return nil
		}
		c.objects = append(c.objects, o)
		return o.Message()
	}
	for _, name := range []string{"staff", "partners", "p-3"} {
		m := arbitrary.Spec(d.bytes(), resource.KindAuthPolicy)
		if p, is := m.(*configv1.AuthPolicy); is && take(resource.KindAuthPolicy, name, ownTokens(p)) != nil {
			c.policies[name] = resource.Spec[*configv1.AuthPolicy](c.objects[len(c.objects)-1])
		}
	}
	if l, is := arbitrary.Spec(d.bytes(), resource.KindLicense).(*configv1.License); is {
		if d.one(2) {
			l.Gates = nil
		}
		if l.Facts, l.MaxProxies = nil, 0; d.one(2) {
			const key = "PENG-ABCD-EFGH-IJKL-MNOP"
			l.Key = key + "-" + license.Checksum(key)
		}
		if take(resource.KindLicense, "main", l) != nil {
			for _, g := range l.GetGates() {
				c.gates = append(c.gates, g.GetPaths()...)
			}
		}
	}
	for _, name := range []string{"everyone", "partners", "l-3"} {
		if d.one(2) {
			take(resource.KindRateLimit, name, limits(d))
		}
	}
	g := proto.CloneOf(gateway)
	names := []string{"", "staff", "partners"}
	if g.AuthPolicy = pick(d, names); c.policies[g.AuthPolicy] == nil {
		g.AuthPolicy = ""
	}
	if st.Get(resource.Ref{Kind: resource.KindLicense, Name: "main"}) != nil && d.one(2) {
		g.License = "main"
	}
	if d.one(4) {
		g.Limits = &configv1.Limits{LocalRateLimit: plenty(d)}
	}
	take(resource.KindGateway, resource.DefaultGateway, g)
	for i := range 2 + d.IntN(12) {
		name := fmt.Sprintf("r%d", i)
		r, is := arbitrary.Spec(d.bytes(), resource.KindRoute).(*configv1.Route)
		if is && take(resource.KindRoute, name, d.tame(name, r, st)) != nil {
			c.routes = append(c.routes, resource.Spec[*configv1.Route](c.objects[len(c.objects)-1]))
		}
	}
	return c
}

// ownTokens gives a policy opaque tokens that requests may have.
func ownTokens(p *configv1.AuthPolicy) *configv1.AuthPolicy {
	for i, t := range p.GetTokens() {
		sum := sha256.Sum256([]byte(opaque[i%len(opaque)]))
		t.Sha256 = hex.EncodeToString(sum[:])
	}
	if p.GetJwt().GetRemoteJwks() != nil {
		p.Jwt.RemoteJwks.Service = "web"
	}
	return p
}

// plenty is a limit that nobody reaches.
func plenty(d draws) *configv1.LocalRateLimit {
	return &configv1.LocalRateLimit{Requests: 1_000_000 + uint32(d.IntN(9)), Burst: 10_000_000}
}

func limits(d draws) *configv1.RateLimitPolicy {
	networks := []string{"127.0.0.0/8", "127.0.0.2", "127.0.0.0/30", "0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32", "::/0"}
	p := &configv1.RateLimitPolicy{RequestsPerSecond: 1_000_000 + uint32(d.IntN(9)), RequestsBurst: 10_000_000}
	if d.one(2) {
		p.Cidrs = some(d, 2, networks)
	}
	if d.one(4) {
		p.Allow = some(d, 2, networks)
	}
	return p
}

// tame takes out of a route what is about time and what a test cannot see, and marks it.
func (d draws) tame(name string, r *configv1.Route, st *config.State) *configv1.Route {
	r.Hosts, r.Gateways, r.Mirrors, r.Tls = some(d, 3, hosts), nil, nil, configv1.Route_TLS_UNSPECIFIED
	r.Timeout, r.IdleTimeout, r.Retry, r.ResponseHeadersTimeout = nil, nil, nil, nil
	r.RequestHeaders, r.Websocket = nil, false
	r.ResponseHeaders = &configv1.HeaderChanges{Set: []*configv1.HeaderValue{{Name: "x-route", Value: name}}}
	if d.one(2) {
		r.Headers, r.Query = nil, nil
	}
	if d.one(2) { // so that some route takes most requests
		r.Methods = nil
	}
	if d.one(2) {
		r.Listeners = nil
	}
	if d.one(3) {
		r.Path = &configv1.PathMatch{Match: &configv1.PathMatch_Prefix{Prefix: pick(d, prefixes)}}
	}
	if r.LocalRateLimit != nil {
		r.LocalRateLimit = plenty(d)
	}
	if !d.one(3) {
		r.Features = nil
	}
	d.action(r)
	if x := r.GetDirectResponse(); x != nil {
		if x.Body = ""; x.GetStatus() != 204 && x.GetStatus() != 205 && x.GetStatus() != 304 {
			x.Body = "by " + name
		}
	}
	if p := r.GetAuthPolicy(); p != "" && p != config.NoPolicy &&
		st.Get(resource.Ref{Kind: resource.KindAuthPolicy, Name: p}) == nil {
		r.AuthPolicy = ""
	}
	return r
}

// action gives a route another action than it has now and then: package arbitrary makes few that are taken.
func (d draws) action(r *configv1.Route) {
	redirect, direct := r.GetRedirect(), r.GetDirectResponse()
	switch d.IntN(6) {
	case 0, 1:
		r.Backends, r.Redirect, r.DirectResponse = nil, nil, nil
		for _, name := range some(d, 3, []string{"web", "api", "s-3"}) {
			b := &configv1.Backend{Service: name}
			if d.one(2) {
				b.Weight = proto.Uint32(uint32(d.IntN(4)))
			}
			r.Backends = append(r.Backends, b)
		}
		if d.one(2) {
			r.Rewrite = &configv1.Rewrite{Host: pick(d, []string{"", "", "inside.test", "A.test:81"})}
			if d.one(2) {
				r.Rewrite.Prefix = pick(d, []string{"/", "/new", "/new/", "//x"})
			} else {
				r.Rewrite.Regex = &configv1.RegexRewrite{
					Pattern:      pick(d, []string{"/a(.*)", "a", "/", "^/[^/]*", "(?i)A|b", "[[:alpha:]]*", "(/a)?", "$", "x"}),
					Substitution: pick(d, []string{"", "/", "/new", `/\0`, `/x\\y`, "/-"}),
				}
			}
		}
	case 2:
		if redirect == nil {
			redirect = &configv1.Redirect{
				Scheme: pick(d, []string{"", "http", "https"}), Host: pick(d, []string{"", "b.example.com", "b.example.com:81"}),
				Port: pick(d, []uint32{0, 0, 443, 8443}), Status: pick(d, []uint32{0, 301, 302, 303, 307, 308}), StripQuery: d.one(3),
			}
			switch {
			case d.one(3):
				redirect.Path = pick(d, []string{"/new", "/new?x=1", "/?"})
			case d.one(2):
				redirect.Prefix = pick(d, []string{"/new", "/", "/new/", "/new?y"})
			}
		}
		r.Backends, r.Redirect, r.DirectResponse, r.Rewrite = nil, redirect, nil, nil
	case 3:
		if direct == nil {
			direct = &configv1.DirectResponse{Status: pick(d, []uint32{200, 201, 204, 302, 404, 503})}
		}
		r.Backends, r.Redirect, r.DirectResponse, r.Rewrite = nil, nil, direct, nil
	}
	for _, b := range r.GetBackends() {
		b.RequestHeaders = nil
	}
}

// document is an object as the API takes it.
func document(o *resource.Object) (map[string]any, error) {
	raw, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(o.Message())
	if err != nil {
		return nil, err
	}
	return map[string]any{"kind": o.Kind, "name": o.Name, "spec": json.RawMessage(raw)}, nil
}
