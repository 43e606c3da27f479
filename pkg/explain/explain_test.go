package explain_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/explain"
	"github.com/marchproxy/marchproxy/pkg/filterconfig"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

func object(t testing.TB, kind, name, spec string) *resource.Object {
	t.Helper()
	k, _ := resource.KindByName(kind)
	m, v := resource.DecodeSpec(k, []byte(spec))
	if len(v) > 0 {
		t.Fatal(kind, name, v)
	}
	o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

const token = "c2VjcmV0LXRva2VuLW9mLWEtbWFjaGluZQ=="

// shop is a configuration with something of everything.
func shop(t testing.TB) *config.State {
	t.Helper()
	st := config.New()
	st.Apply([]*resource.Object{
		object(t, "Gateway", "default", `{"license":"main","limits":{"local_rate_limit":{"requests":500}},"listeners":[
			{"name":"http","port":80},{"name":"inside","port":8080},
			{"name":"https","port":443,"protocol":"https","certificates":["site"],
			 "client_auth":[{"hosts":["strict.test","*.strict.test"],"ca_certificate":"ca"}]}]}`),
		object(t, "License", "main", `{"features":["a"],"facts":{"has_key":true},"gates":[{"feature":"b","paths":["/gated"]}]}`),
		object(t, "AuthPolicy", "staff", `{"tokens":[{"name":"ci","sha256":
			"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}],"exempt_paths":[{"path":"/free","prefix":true}]}`),
		object(t, "AuthPolicy", "keys", `{"jwt":{"keys":[{"kid":"k","algorithm":"EdDSA","public_key":
			"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA4CarmfBFm5dV7gG2xy9OnArJHLQl391jSnPWseivgPQ=\n-----END PUBLIC KEY-----\n"}]},
			"exempt_paths":[{"path":"/open"}]}`),
		object(t, "RateLimitPolicy", "all", `{"requests_per_second":50}`),
		object(t, "RateLimitPolicy", "few", `{"cidrs":["203.0.113.0/24"],"requests_per_second":5,"requests_burst":9}`),
		object(t, "Route", "root", `{"hosts":["a.test"],"backends":[{"service":"web","weight":3},{"service":"api"}]}`),
		object(t, "Route", "post", `{"hosts":["a.test"],"path":{"prefix":"/api"},"methods":["POST"],
			"headers":[{"name":"x-v","value":{"exact":"1"}}],"query":[{"name":"q","value":{"present":true}}],
			"backends":[{"service":"api"}],"rewrite":{"prefix":"/v1","host":"api.inside"}}`),
		object(t, "Route", "gone", `{"hosts":["a.test"],"path":{"exact":"/gone"},"direct_response":{"status":410,"body":"gone\n"}}`),
		object(t, "Route", "agent", `{"hosts":["a.test"],"path":{"exact":"/agent"},
			"headers":[{"name":"user-agent","value":{"exact":"a,b"}},{"name":"connection","value":{"present":false}}],
			"direct_response":{"status":410}}`),
		object(t, "Route", "away", `{"hosts":["a.test"],"path":{"prefix":"/old"},
			"redirect":{"scheme":"https","prefix":"/new","status":308,"strip_query":true}}`),
		object(t, "Route", "staff", `{"hosts":["staff.test"],"auth_policy":"staff","local_rate_limit":{"requests":7,"per":"60s"},
			"backends":[{"service":"web"}]}`),
		object(t, "Route", "keys", `{"hosts":["keys.test"],"auth_policy":"keys","backends":[{"service":"web"}]}`),
		object(t, "Route", "licensed", `{"hosts":["l.test"],"features":["a"],"backends":[{"service":"web"}]}`),
		object(t, "Route", "wild", `{"hosts":["*.wild.test"],"path":{"regex":"/[a-z]+"},"backends":[{"service":"web"}]}`),
		object(t, "Route", "strict", `{"hosts":["strict.test"],"backends":[{"service":"web"}]}`),
		object(t, "Route", "cors", `{"hosts":["cors.test"],"auth_policy":"staff","cors":{"allow_origins":[{"exact":"https://o.test"}]},
			"backends":[{"service":"web"}]}`),
		object(t, "Route", "inside", `{"hosts":["inside.test"],"listeners":["inside"],"backends":[{"service":"web"}]}`),
	})
	return st
}

func ask(t testing.TB, st *config.State, r explain.Request) (api.Explanation, resource.Violations) {
	t.Helper()
	for to, def := range map[*string]string{&r.Gateway: "default", &r.Method: "GET", &r.Path: "/"} {
		if *to == "" {
			*to = def
		}
	}
	if r.Now.IsZero() {
		r.Now = time.Unix(1_700_000_000, 0)
	}
	e, v, err := explain.Explain(t.Context(), translate.At(st, r.Gateway, explain.Host(r.Host)), translate.Options{}, r)
	if err != nil {
		t.Fatal(err)
	}
	return e, v
}

func headers(lines ...string) (out []filterconfig.Header) {
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		out = append(out, filterconfig.Header{Name: name, Value: value})
	}
	return out
}

// TestExplain: an answer of each sort, with what led to it. That they are an Envoy's is shown by make check-explain.
func TestExplain(t *testing.T) {
	st := shop(t)
	for _, c := range []struct {
		r     explain.Request
		wants string // members of the answer, "status reason route location"
		says  string // somewhere in the answer
	}{
		{explain.Request{Host: "a.test"}, "0 forwarded root ", `"name":"web","percent":75`},
		{explain.Request{Host: "a.test:8080", Scheme: "http"}, "0 forwarded root ", `"listener":"inside"`},
		{explain.Request{Host: "A.Test."}, "0 forwarded root ", `"host":"a.test"`},
		{
			explain.Request{Host: "a.test", Path: "/api/x?q=1", Method: "POST", Headers: headers("X-V: 1")},
			"0 forwarded post ",
			`"path":"/v1/x?q=1","host":"api.inside"`,
		},
		{ // Envoy keeps one user agent
			explain.Request{Host: "a.test", Path: "/agent", Headers: headers("user-agent: a", "user-agent: ", "User-Agent: b")},
			"410 direct_response agent ", "",
		},
		{ // and no Connection, whatever it says
			explain.Request{Host: "a.test", Path: "/agent", Headers: headers("user-agent: a,b", "connection: close")},
			"410 direct_response agent ", "",
		},
		{ // any of the values of a header that comes several times
			explain.Request{Host: "a.test", Path: "/api/x?q=1", Method: "POST", Headers: headers("x-v: 0", "X-V: 1", "x-v: 2")},
			"0 forwarded post ", "",
		},
		{
			explain.Request{Host: "a.test", Path: "/api/x", Method: "POST", Headers: headers("X-V: 1")},
			"0 forwarded root ",
			`"reason":"query parameter \"q\": is not there"`,
		},
		{explain.Request{Host: "a.test", Path: "/api/x?q", Method: "POST"}, "0 forwarded root ", `header \"x-v\": is not there`},
		{explain.Request{Host: "a.test", Path: "/api"}, "0 forwarded root ", `method: is not \"POST\"`},
		{explain.Request{Host: "a.test", Path: "/apix"}, "0 forwarded root ", `path: is neither /api nor below it`},
		{explain.Request{Host: "a.test", Path: "/gone"}, "410 direct_response gone ", `"body":"gone\n"`},
		{explain.Request{Host: "a.test", Path: "/x/../gone"}, "410 direct_response gone ", "is /gone once it is normalised"},
		{explain.Request{Host: "a.test", Path: "/old/x?y"}, "308 redirect away https://a.test/new/x", ""},
		{explain.Request{Host: "a.test", Path: "/a%2Fb?c"}, "307 escaped_slashes  /a/b?c", ""},
		{explain.Request{Host: "a.test", Path: "/#x"}, "400 path  ", ""},
		{explain.Request{Host: "a.test", Method: "TRACE"}, "405 trace  ", ""},
		{explain.Request{Host: "a.test", Method: "FOO"}, "400 method  ", ""},
		{explain.Request{Host: "a.test:"}, "400 host  ", ""},
		{explain.Request{Host: "a..test"}, "400 host  ", ""},
		{explain.Request{Host: "a/b"}, "400 host  ", ""},
		{explain.Request{Host: "*"}, "400 host  ", ""},
		{explain.Request{Host: "nobody.test"}, "404 no_route  ", ""},
		{explain.Request{Host: "x.wild.test", Path: "/abc"}, "0 forwarded wild ", `"host":"*.wild.test"`},
		{explain.Request{Host: "x.wild.test", Path: "/ABC"}, "404 no_route  ", "does not match /[a-z]+"},
		{explain.Request{Host: "wild.test", Path: "/abc"}, "404 no_route  ", ""},
		{explain.Request{Host: "inside.test"}, "404 no_route  ", ""},
		{explain.Request{Host: "inside.test", Listener: "inside"}, "0 forwarded inside ", ""},
		{explain.Request{Host: "staff.test"}, "401 auth_missing staff ", `"auth_policy":"staff"`},
		{explain.Request{Host: "staff.test", Headers: headers("Authorization: Bearer " + token)}, "401 auth_unknown_token staff ", ""},
		{
			explain.Request{Host: "staff.test", Headers: headers("Authorization: Bearer ", "authorization: Bearer x")},
			"401 auth_scheme staff ", "missing_credentials",
		},
		{explain.Request{Host: "staff.test", Path: "/free/x"}, "0 forwarded staff ", `"kind":"route","name":"staff","requests":7`},
		{explain.Request{Host: "keys.test"}, "401 auth_missing keys ", ""},
		{explain.Request{Host: "keys.test", Path: "/open"}, "0 forwarded keys ", ""},
		{
			explain.Request{Host: "keys.test", Headers: headers("Authorization: Bearer a.b.c")},
			"0 forwarded keys ",
			"the token is good under policy keys",
		},
		{explain.Request{Host: "l.test"}, "0 forwarded licensed ", `"license":"main"`},
		{explain.Request{Host: "l.test", Path: "/gated/x"}, "402 license_feature_not_licensed licensed ", ""},
		{explain.Request{Host: "a.test", Path: "/%67ated"}, "402 license_feature_not_licensed root ", ""},
		{explain.Request{Host: "strict.test"}, "421 misdirected strict ", ""},
		{explain.Request{Host: "strict.test", Scheme: "https"}, "0 forwarded strict ", "the client shows a certificate of ca"},
		{explain.Request{Host: "strict.test", Scheme: "https", ServerName: "a.test"}, "421 misdirected  ", "no client certificate"},
		{explain.Request{Host: "x.strict.test", Scheme: "https"}, "404 no_route  ", "the client shows a certificate of ca"},
		{explain.Request{Host: "cors.test", Method: "OPTIONS", Headers: headers("Origin: https://o.test",
			"Access-Control-Request-Method: PUT")}, "200 preflight cors ", ""},
		{explain.Request{Host: "cors.test", Method: "OPTIONS", Headers: headers("Origin: https://p.test",
			"Access-Control-Request-Method: PUT")}, "401 auth_missing cors ", ""},
		{
			explain.Request{Host: "a.test", Source: netip.MustParseAddr("203.0.113.9")},
			"0 forwarded root ",
			`"kind":"policy","name":"few","requests":5,"per":"1s","burst":9,"counted":"requests of 203.0.113.9/32"`,
		},
		{
			explain.Request{Host: "a.test", Source: netip.MustParseAddr("2001:db8::1")},
			"0 forwarded root ",
			`"counted":"requests of 2001:db8::/64"`,
		},
		{explain.Request{Host: "a.test"}, "0 forwarded root ", "depend on the client's address, which was not given"},
		{
			explain.Request{Host: "staff.test", Headers: headers("content-type: application/grpc")},
			"200 auth_missing staff ",
			`"grpc_status":16`,
		},
		{explain.Request{Host: "a.test", Headers: make([]filterconfig.Header, 100)}, "431 too_many_headers  ", ""},
	} {
		e, v := ask(t, st, c.r)
		if len(v) > 0 {
			t.Errorf("%+v: %v", c.r, v)
			continue
		}
		if got := fmt.Sprintf("%d %s %s %s", e.Status, e.Reason, e.Route, e.Location); got != c.wants {
			t.Errorf("%s %s%s: %q, want %q\n%+v", c.r.Method, c.r.Host, c.r.Path, got, c.wants, e)
		}
		raw, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), c.says) {
			t.Errorf("%s %s%s: %s is not in\n%s", c.r.Method, c.r.Host, c.r.Path, c.says, raw)
		}
	}
	for path, r := range map[string]explain.Request{
		"$.gateway": {Host: "a", Gateway: "none"}, "$.listener": {Host: "a", Listener: "none"},
		"$.scheme": {Host: "a", Listener: "http", Scheme: "https"},
	} {
		if _, v := ask(t, st, r); len(v) != 1 || v[0].Path != path {
			t.Errorf("%s: %v", path, v)
		}
	}
}

// TestNothingIsRepeated: no value of a header is in the answer, whatever becomes of the request.
func TestNothingIsRepeated(t *testing.T) {
	st := shop(t)
	for _, host := range []string{"a.test", "staff.test", "keys.test", "cors.test", "a..test", "nobody.test"} {
		for _, path := range []string{"/", "/gated", "/old", "/api?q"} {
			e, _ := ask(t, st, explain.Request{Host: host, Path: path, Method: "POST", Headers: headers(
				"Authorization: Bearer "+token, "Cookie: s=SECRET", "X-V: SECRET", "Origin: SECRET", "X-License-Key: SECRET",
				"Content-Type: SECRET")})
			if raw, err := json.Marshal(e); err != nil || strings.Contains(string(raw), token) ||
				strings.Contains(string(raw), "SECRET") {
				t.Errorf("%s%s: %v %s", host, path, err, raw)
			}
		}
	}
}

// crowd is a configuration of many hosts with a route, and a policy for each hundredth.
func crowd(t testing.TB, hosts int) *config.State {
	t.Helper()
	st := shop(t)
	var all []*resource.Object
	for i := range hosts {
		policy := ""
		if i%100 == 0 {
			policy = fmt.Sprintf("p-%d", i/100)
			all = append(all, object(t, "AuthPolicy", policy, fmt.Sprintf(`{"tokens":[{"name":"x","sha256":"%064d"}]}`, i)))
		}
		all = append(all, object(t, "Route", fmt.Sprintf("r-%d", i), fmt.Sprintf(
			`{"hosts":["h-%d.test"],"auth_policy":%q,"backends":[{"service":"web"}]}`, i, policy)))
	}
	st.Apply(all)
	return st
}

// TestCostOfAnExplanation: it does not grow with what is there beside the host.
func TestCostOfAnExplanation(t *testing.T) {
	cost := func(hosts int) float64 {
		st := crowd(t, hosts)
		return testing.AllocsPerRun(5, func() { _, _ = ask(t, st, explain.Request{Host: "h-0.test"}) })
	}
	few, many := cost(100), cost(3000)
	t.Logf("%.0f allocations beside 100 hosts, %.0f beside 3,000", few, many)
	if many > 1.1*few {
		t.Errorf("%.0f allocations beside 100 hosts, %.0f beside 3,000", few, many)
	}
}

func BenchmarkExplain(b *testing.B) {
	for _, hosts := range []int{100, 1000, 10000} {
		st := crowd(b, hosts)
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			for b.Loop() {
				_, _ = ask(b, st, explain.Request{Host: "h-0.test"})
			}
		})
		b.Run(fmt.Sprint(hosts, "/under the lock"), func(b *testing.B) {
			for b.Loop() {
				translate.At(st, "default", "h-0.test")
			}
		})
	}
}
