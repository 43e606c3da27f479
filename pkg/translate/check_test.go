package translate_test

import (
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestCheckRefuses: what the schema accepts and Envoy refuses, each with its place.
func TestCheckRefuses(t *testing.T) {
	for _, c := range []struct{ kind, spec, want string }{
		{"Service", `{"health_check":{"grpc":{}}}`, "$.health_check.grpc health_check.grpc"},
		{"Service", `{"protocol":"http2","health_check":{"grpc":{}}}`, ""},
		{"Service", `{"load_balancing":{"table_size":1000}}`, "$.load_balancing.table_size load_balancing.prime"},
		{"Service", `{"load_balancing":{"choice_count":1}}`, "$.load_balancing.choice_count load_balancing.choices"},
		{
			"Service", `{"endpoints":[{"host":"127.0.0.1","port":1},{"host":"127.0.0.1","port":1}]}`,
			"$.endpoints[1] endpoint.duplicate",
		},
		{
			"Service", `{"endpoints":[{"host":"127.0.0.1","port":1},{"host":"127.0.0.1","port":2,"priority":2}]}`,
			"$.endpoints endpoint.priority",
		},
		{"Service", `{"endpoints":[{"host":"fe80::1%eth0","port":1}]}`, "$.endpoints[0].host endpoint.host"},
		{
			"Service", `{"locality":{"prefer":"zone","split":[{"place":{"cloud":"a"},"weight":1}]}}`,
			"$.locality.prefer locality.split",
		},
		{"Service", `{"locality":{"split":[{"place":{"cloud":"a"}}]}}`, "$.locality.split locality.split"},
		{"Service", `{"locality":{"latency":{}}}`, "$.locality.latency locality.latency"},
		{"Service", `{"locality":{"latency":{}},"health_check":{"tcp":{}}}`, "$.locality.latency locality.latency"},
		{
			"Service", `{"locality":{"latency":{},"split":[{"place":{"cloud":"a"},"weight":1}]},"health_check":{"http":{}}}`,
			"$.locality.latency locality.split",
		},
		{
			"Service", `{"locality":{"latency":{"within":"0.01s","within_percent":50},"prefer":"zone",` +
				`"failover":[{"cloud":"a"}]},"health_check":{"http":{}}}`, "",
		},
		{
			"Service", `{"locality":{"failover":[{},{"cloud":"a"},{"cloud":"a","zone":"b"}]}}`,
			"$.locality.failover[0] locality.place; $.locality.failover[2] locality.place",
		},
		{
			"Service", `{"locality":{"failover":[{"cloud":"a"}],"costs":[{"to":{"cloud":"a"},"cost":1}]}}`,
			"$.locality.costs locality.order",
		},
		{
			"Service", `{"locality":{"costs":[{"to":{"cloud":"a"}},{"from":{"cloud":"b"},"to":{"cloud":"a"},"cost":2}]}}`,
			"$.locality.costs[1] locality.place",
		},
		{
			"Service", `{"locality":{"overprovisioning_factor":99}}`,
			"$.locality.overprovisioning_factor locality.factor",
		},
		{
			"Service", `{"locality":{"prefer":"region","failover":[{"cloud":"a"},{"zone":"b"}],` +
				`"overprovisioning_factor":100}}`, "",
		},
		{"Gateway", `{"listeners":[{"name":"a","port":1,"address":"1.2.3"}]}`, "$.listeners[0].address gateway.address"},
		{
			"Gateway", `{"listeners":[{"name":"a","port":1}],"access_log":{"fields":{"x":"%NONSENSE%"}}}`,
			`$.access_log.fields["x"] header.format`,
		},
		{"Route", `{"path":{"regex":"x{1000}"},"direct_response":{"status":200}}`, "$.path.regex regex"},
		{"Route", `{"path":{"regex":"x{900}"},"direct_response":{"status":200}}`, ""},
		{"Route", `{"path":{"regex":"\\x{100}"},"direct_response":{"status":200}}`, "$.path.regex regex"},
		{"Route", `{"path":{"regex":"\\p{Letter}"},"direct_response":{"status":200}}`, "$.path.regex regex"},
		{"Route", `{"path":{"regex":"\\p{Cn}"},"direct_response":{"status":200}}`, "$.path.regex regex"},
		{"Route", `{"path":{"regex":"[^é]+\\x{ff}\\p{^Greek}\\pL"},"direct_response":{"status":200}}`, ""},
		{"Route", `{"path":{"regex":"a**"},"direct_response":{"status":200}}`, "$.path.regex regex"},
		{"Route", `{"path":{"regex":"("},"direct_response":{"status":200}}`, "$.path.regex regex"},
		{
			"Route", `{"direct_response":{"status":200},"response_headers":{"set":[{"name":"a","value":"50%"}]}}`,
			"$.response_headers.set[0].value header.format",
		},
		{
			"Route", `{"direct_response":{"status":200},"response_headers":{"remove":["Host"]}}`,
			"$.response_headers.remove[0] header.protected",
		},
		{"Route", `{"direct_response":{"status":204,"body":"x"}}`, "$.direct_response.body route.body"},
		{"Route", `{"direct_response":{"status":204,"content_type":"text/plain"}}`, ""},
		{"Route", `{"hosts":["[::1]","[2001:db8::1]","[::ffff:1.2.3.4]","[::ffff:102:304]"],` +
			`"direct_response":{"status":200}}`, ""},
		{"Route", `{"hosts":["a","[0:0:0:0:0:0:0:1]","[2001:0db8::1]","[:]","[1.2.3.4]","[::ffff:0102:304]"],` +
			`"direct_response":{"status":200}}`, "$.hosts[1] route.host; $.hosts[2] route.host; $.hosts[3] route.host; " +
			"$.hosts[4] route.host; $.hosts[5] route.host"},
		{
			"Route", `{"backends":[{"service":"a"}],"timeout":"1s","response_headers_timeout":"1s"}`,
			"$.response_headers_timeout route.timeouts",
		},
		{"Route", `{"backends":[{"service":"a"}],"timeout":"0s","response_headers_timeout":"1s",` +
			`"retry":{"per_try_timeout":"1s"}}`, "$.response_headers_timeout route.timeouts"},
		{"Route", `{"backends":[{"service":"a"}],"timeout":"1s","response_headers_timeout":"0.5s"}`, ""},
		{
			"AuthPolicy", `{"tokens":[{"name":"a"}],"exempt_paths":[{"path":"/a"},{"path":"/a/../b"}]}`,
			"$.exempt_paths[1].path path.dots",
		},
		{"AuthPolicy", `{"tokens":[{"name":"a"}],"exempt_paths":[{"path":"/..."},{"path":"/a.b/..c"}]}`, ""},
		{"License", `{"gates":[{"feature":"a","paths":["/a","/."]}]}`, "$.gates[0].paths[1] path.dots"},
		{
			"AuthPolicy", `{"jwt":{"remote_jwks":{"service":"a","path":"/","host":"a:99999"}}}`,
			"$.jwt.remote_jwks.host auth_policy.host",
		},
		{"AuthPolicy", `{"jwt":{"remote_jwks":{"service":"a","path":"/","host":"a:8443"}}}`, ""},
		{"AuthPolicy", `{"tokens":[{"name":"a","not_after":"1969-12-31T23:59:59Z"}]}`, "$.tokens[0].not_after timestamp"},
		{"AuthPolicy", `{"tokens":[{"name":"a","subject":"x"}],"jwt":{"jwks":"","remote_jwks":{"service":"a","path":"/"},` +
			`"forward_claims":[{"claim":["sub"],"header":"cookie"}]}}`, "$.jwt.forward_claims[0].header header.protected; " +
			"$.tokens auth_policy.engine"},
	} {
		k, _ := resource.KindByName(c.kind)
		m, v := resource.DecodeSpec(k, []byte(c.spec))
		if len(v) > 0 {
			t.Fatal(c.spec, v)
		}
		o, err := resource.New(resource.Ref{Kind: c.kind, Name: "a"}, m)
		if err != nil {
			t.Fatal(err)
		}
		st := config.New()
		changes, _ := st.Apply([]*resource.Object{o})
		var got []string
		for _, p := range translate.Check(st, changes) {
			got = append(got, p.Path+" "+p.Rule)
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s: %q, not %q", c.spec, strings.Join(got, "; "), c.want)
		}
	}
}

// TestStripPrefixTooLong: a rewrite of a prefix to / becomes a regular expression of its length.
func TestStripPrefixTooLong(t *testing.T) {
	for length, want := range map[int]int{900: 0, 3000: 1} {
		k, _ := resource.KindByName(resource.KindRoute)
		m, v := resource.DecodeSpec(k, []byte(`{"path":{"prefix":"/`+strings.Repeat("a", length)+
			`"},"rewrite":{"prefix":"/"},"backends":[{"service":"a"}]}`))
		if len(v) > 0 {
			t.Fatal(v)
		}
		o, err := resource.New(resource.Ref{Kind: k.Name, Name: "a"}, m)
		if err != nil {
			t.Fatal(err)
		}
		st := config.New()
		changes, _ := st.Apply([]*resource.Object{o})
		if got := translate.Check(st, changes); len(got) != want {
			t.Errorf("%d bytes: %v", length, got)
		}
	}
}
