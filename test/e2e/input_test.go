package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestBadInput: what is no configuration is refused with the field named, changes nothing, and leaves the
// way free for the next write.
func TestBadInput(t *testing.T) {
	s := start(t, "--no-demo")
	before := call(t, s, "GET", s.API+"/v1/status", nil, 200)["revision"]
	hosts := func(n int) string {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf(`"h%d.test"`, i)
		}
		return strings.Join(names, ",")
	}
	route := s.API + "/v1/routes/r"
	for _, c := range []struct {
		name, url, body string
		status          int
		path            string
	}{
		{"oversized", route, `{"spec":{"direct_response":{"status":200,"body":"` + strings.Repeat("x", 1<<20) +
			`"}}}`, 413, ""},
		{"deep", route, strings.Repeat(`{"spec":`, 40) + "1" + strings.Repeat("}", 40), 400, "$"},
		{"very deep", route, `{"spec":` + strings.Repeat("[", 500_000), 400, "$"},
		{"duplicate key", route, `{"spec":{"hosts":["a.test"],"hosts":["b.test"]}}`, 400, "$.spec.hosts"},
		{"unknown field", route, `{"spec":{"host":"a.test"}}`, 422, "$.spec.host"},
		{"unknown member", route, `{"spec":{},"color":"red"}`, 400, "$"},
		{"number as label", route, `{"spec":{},"labels":{"team":"a","tier":1}}`, 400, "$.labels.tier"},
		{"number as name", route, `{"spec":{},"name":7}`, 400, "$.name"},
		{"list as owner", s.API + "/v1/apply", `{"resources":[{"kind":"Route","name":"r","spec":{}},{"kind":"Route",` +
			`"name":"s","spec":{},"owner":["a"]}]}`, 400, "$.resources[1].owner"},
		{"number as façade host", s.XDS + "/v1/config", `{"version":"1","services":[{"name":"a","hosts":["a",7]}],` +
			`"routes":[]}`, 400, "$.services[0].hosts[1]"},
		{"invalid UTF-8", route, "{\"spec\":{\"hosts\":[\"\xff\"]}}", 400, "$"},
		{
			"zero character", route, `{"spec":{"direct_response":{"status":200,"body":"\u0000"}}}`, 400,
			"$.spec.direct_response.body",
		},
		{"half a surrogate", route, `{"spec":{"hosts":["\ud800.test"]}}`, 422, "$.spec.hosts[0]"},
		{"not JSON", route, `spec: {}`, 400, "$"},
		{"two documents", route, `{"spec":{}} {"spec":{}}`, 400, "$"},
		{"empty", route, ``, 400, "$"},
		{"null", route, `null`, 400, "$"},
		{
			"number beyond its range", route, `{"spec":{"backends":[{"service":"a","weight":99999999999999999999}]}}`, 422,
			"$.spec.backends[0].weight",
		},
		{
			"number with an endless exponent", route, `{"spec":{"backends":[{"service":"a","weight":1e999999999}]}}`, 422,
			"$.spec.backends[0].weight",
		},
		{"dangling reference", route, `{"spec":{"backends":[{"service":"nowhere"}]}}`, 422, "$.spec.backends[0].service"},
		{
			"too many hosts", route, `{"spec":{"hosts":[` + hosts(10_001) + `],"direct_response":{"status":200}}}`, 422,
			"$.spec.hosts",
		},
		{
			"regex that RE2 does not take", route, `{"spec":{"path":{"regex":"(?=a)"},"direct_response":{"status":200}}}`, 422,
			"$.spec.path.regex",
		},
		{"name", s.API + "/v1/routes/Not.A.Label", `{"spec":{}}`, 422, "$.name"},
		{"kind", s.API + "/v1/bananas/a", `{"spec":{}}`, 404, ""},
		{"broken façade document", s.XDS + "/v1/config", `{"version":"1","services":[`, 400, "$"},
		{"dangling façade document", s.XDS + "/v1/config", `{"version":"1","services":[],"routes":[{"name":"r",` +
			`"prefix":"/","cluster_name":"nowhere","hosts":["*"]}]}`, 422, "$.routes[0].cluster_name"},
	} {
		method := http.MethodPut
		if strings.HasPrefix(c.url, s.XDS) || strings.HasSuffix(c.url, "/v1/apply") {
			method = http.MethodPost
		}
		t0 := time.Now()
		status, raw, err := s.Call(t.Context(), method, c.url, c.body)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if status != c.status || (c.path != "" && !strings.Contains(string(raw), fmt.Sprintf(`"path":%q`, c.path))) {
			t.Errorf("%s: status %d, want %d with path %s: %.400s", c.name, status, c.status, c.path, raw)
		}
		if strings.Contains(string(raw), "Go ") || strings.Contains(string(raw), "regex pattern") {
			t.Errorf("%s: the words are not for people: %.400s", c.name, raw)
		}
		if d := time.Since(t0); d > 5*time.Second {
			t.Errorf("%s: answered after %v", c.name, d)
		}
	}
	if after := call(t, s, "GET", s.API+"/v1/status", nil, 200)["revision"]; after != before {
		t.Errorf("revision %v after bad input only, %v before", after, before)
	}
	// As many hosts as one route may have: it is taken, and live.
	got := call(t, s, "PUT", route+"?wait=live&timeout=60s", `{"spec":{"hosts":[`+hosts(10_000)+
		`],"direct_response":{"status":200,"body":"many"}}}`, 201)
	if l, err := json.Marshal(got["live"]); err != nil || !strings.Contains(string(l), `"live":true`) {
		t.Fatalf("10,000 hosts: %s %v", l, err)
	}
	for _, host := range []string{"h0.test", "h9999.test"} {
		if status, body := proxied(t, s, host, "/"); status != 200 || body != "many" {
			t.Errorf("%s answers %d %q", host, status, body)
		}
	}
	if err := s.Doctor(t.Context(), 20*time.Second); err != nil {
		t.Error(err)
	}
}
