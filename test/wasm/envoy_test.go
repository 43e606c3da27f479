package wasm

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/wasm/envoy"
)

// echo is a backend that answers with the request as it came.
func echo(t *testing.T) int {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Header.Set("x-path", r.URL.RequestURI())
		for k, v := range r.Header {
			w.Header()["Got-"+k] = v
		}
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(s.Close)
	return portOf(t, s.URL)
}

// runEnvoy runs the whole chain in the order of production; at the end no wasm failure may be counted.
func runEnvoy(t *testing.T, license, auth any, routes ...envoy.Route) *envoy.Proxy {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	p, err := envoy.Start(ctx, envoy.Config{Backend: echo(t), Routes: routes, Filters: []envoy.Filter{
		{Name: "metrics", Configuration: object{}},
		{Name: "license", Configuration: license},
		{Name: "auth", Configuration: auth},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		noFailures(t, p)
		if log := p.Stop(); t.Failed() {
			t.Log(log)
		}
	})
	return p
}

func noFailures(t *testing.T, p *envoy.Proxy) {
	t.Helper()
	found, err := p.Failures()
	if err != nil {
		t.Fatal(err)
	}
	if found != nil {
		t.Errorf("wasm failures: %q", found)
	}
}

func get(t *testing.T, p *envoy.Proxy, path string, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(strings.NewReader(string(b)))
	return resp
}

func body(resp *http.Response) string {
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// scrape reads the figures after the next merge of histograms, which Envoy does at intervals.
func scrape(t *testing.T, p *envoy.Proxy) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := p.Get("/stats/prometheus")
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`(?m)^marchproxy_request_duration_us_count\{service="shop",route="open"\} 2$`).
			MatchString(all) {
			return all
		}
		select {
		case <-ctx.Done():
			t.Fatal("no merged histogram")
		case <-tick.C:
		}
	}
}

func TestEnvoyChain(t *testing.T) {
	p := runEnvoy(t,
		object{
			"gates": []object{{"path": "/api/v1/multi-cloud", "feature": "multi-cloud"}}, "per_route": true,
			"features": []string{"traffic-shaping"},
		},
		object{"realm": "shop", "per_route": true, "default_policy": "users", "policies": []object{
			users,
			{"name": "machines", "tokens": []object{{"sha256": digest(opaqueToken), "subject": "ci"}}},
		}},
		envoy.Route{Match: object{"prefix": "/open"}, Name: translate.RouteName("shop", "open", translate.NoPolicy, nil)},
		envoy.Route{Match: object{"prefix": "/machines"}, Name: translate.RouteName("shop", "machines", "machines", nil)},
		envoy.Route{Match: object{"prefix": "/lost"}, Name: translate.RouteName("shop", "lost", "nobody", nil)},
		envoy.Route{Match: object{"prefix": "/blue"}, Name: translate.RouteName("shop", "blue", translate.NoPolicy,
			[]string{"traffic-shaping", "blue-green"})},
		envoy.Route{Match: object{"prefix": "/shaped"}, Name: translate.RouteName("shop", "shaped", translate.NoPolicy,
			[]string{"traffic-shaping"})},
	)
	good := "Bearer " + token(t, "k1", real(object{"sub": "ann", "roles": []string{"reader", "admin"}}))
	for _, c := range []struct {
		path, authorization string
		status              int
		body, challenge     string
	}{
		{"/api/test", "", 401, `{"error":"unauthorized","reason":"missing_credentials"}`, `Bearer realm="shop"`},
		{
			"/api/test", "Bearer nonsense", 401, `{"error":"unauthorized","reason":"invalid_token"}`,
			`Bearer realm="shop", error="invalid_token"`,
		},
		{
			"/api/test", "Basic YW5uOnNlY3JldA==", 401, `{"error":"unauthorized","reason":"missing_credentials"}`,
			`Bearer realm="shop"`,
		},
		{
			"/api/test", "Bearer a b", 401, `{"error":"unauthorized","reason":"invalid_token"}`,
			`Bearer realm="shop", error="invalid_token"`,
		},
		{
			"/api/test", "Bearer " + token(t, "k1", object{"exp": 1}), 401, `{"error":"unauthorized","reason":"expired_token"}`,
			`Bearer realm="shop", error="invalid_token"`,
		},
		{
			"/api/test", "Bearer " + token(t, "k1", real(object{"roles": "reader"})), 403,
			`{"error":"forbidden","reason":"insufficient_claims"}`, `Bearer realm="shop", error="insufficient_scope"`,
		},
		{"/api/test", good, 200, "hello", ""},
		{"/api/test", good, 200, "hello", ""},
		{"/healthz", "", 200, "hello", ""},
		{"/healthz/deep", "", 401, "", ""},
		{"/open/x", "", 200, "hello", ""},
		{"/machines", good, 401, "", ""},
		{"/machines", "Bearer " + opaqueToken, 200, "hello", ""},
		{"/lost", good, 503, `{"error":"unavailable","reason":"unavailable"}`, ""},
		{"/api/v1/multi-cloud", good, 402, `{"error":"payment_required","reason":"feature_not_licensed",` +
			`"feature":"multi-cloud"}`, ""},
		{"/api/v1/multi%2dcloud/x", good, 402, "", ""},
		{"/api/v1/multi-clouds", good, 200, "hello", ""},
		{"/blue", "", 402, `{"error":"payment_required","reason":"feature_not_licensed","feature":"blue-green"}`, ""},
		{"/shaped", "", 200, "hello", ""},
	} {
		var h []string
		if c.authorization != "" {
			h = []string{"authorization", c.authorization}
		}
		resp := get(t, p, c.path, h...)
		got := strings.TrimSuffix(body(resp), "\n")
		if resp.StatusCode != c.status || (c.body != "" && got != c.body) ||
			(c.challenge != "" && resp.Header.Get("www-authenticate") != c.challenge) {
			t.Errorf("%s with %.20q: %d %q %q, want %d %q %q", c.path, c.authorization, resp.StatusCode, got,
				resp.Header.Get("www-authenticate"), c.status, c.body, c.challenge)
		}
		if types := resp.Header["Content-Type"]; c.status >= 400 && (len(types) != 1 || types[0] != "application/json") {
			t.Errorf("%s: content type %q", c.path, types)
		}
	}

	resp := get(t, p, "/api/test?a=b", "authorization", good, "x-auth-sub", "root", "x-license-key", "forged", "cookie",
		"a=b", "x-twice", "1", "x-twice", "2")
	for name, want := range map[string]string{
		"X-Auth-Sub": "ann", "X-Auth-Roles": "reader,admin", "Cookie": "a=b",
		"X-Path": "/api/test?a=b", "X-Twice": "1",
	} {
		if got := resp.Header.Get("Got-" + name); got != want {
			t.Errorf("the backend got %s %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"Got-Authorization", "Got-X-License-Key"} {
		if got, ok := resp.Header[name]; ok {
			t.Errorf("the backend got %s: %q", name, got)
		}
	}
	resp = get(t, p, "/open", "x-auth-sub", "root")
	if got, ok := resp.Header["Got-X-Auth-Sub"]; ok {
		t.Errorf("a forged identity passed on an open route: %q", got)
	}

	prometheus := scrape(t, p)
	for _, want := range []string{
		`marchproxy_requests_total{service="shop",route="open",method="read",status="2xx"} 2`,
		`marchproxy_requests_total{service="shop",route="machines",method="read",status="4xx"} 1`,
		`marchproxy_request_bytes_total{service="shop",route="open"} `,
		`marchproxy_response_bytes_total{service="shop",route="open"} `,
		`marchproxy_request_duration_us_bucket{service="shop",route="open",le="60000000"} 2`,
		`marchproxy_auth_decisions_total{decision="allow",reason="jwt_cached"} `,
		`marchproxy_auth_decisions_total{decision="deny",reason="missing"} 2`,
		`marchproxy_license_decisions_total{decision="deny",reason="feature_not_licensed"} 3`,
		`marchproxy_requests_in_flight{} 0`,
	} {
		if !strings.Contains(prometheus, want) {
			var ours []string
			for line := range strings.Lines(prometheus) {
				if strings.Contains(line, "marchproxy") && !strings.Contains(line, "bucket") {
					ours = append(ours, line)
				}
			}
			t.Errorf("no %s in:\n%s", want, strings.Join(ours, ""))
		}
	}
	if stats, err := p.Get("/stats"); err != nil || !strings.Contains(stats, "wasmcustom.marchproxy_requests_total") {
		t.Errorf("/stats | grep wasm finds nothing: %v", err)
	}
}
