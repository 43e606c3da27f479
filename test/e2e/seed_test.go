package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
)

// TestSeed is the integration guide's end-to-end test, without Docker: the system runs, its document is
// posted, and the proxy answers from the backend.
func TestSeed(t *testing.T) {
	s := start(t)
	port := backend(t, "Hello from backend")
	doc := fmt.Sprintf(
		`{"version": "2", "services": [{"name": "test-backend", "hosts": ["localhost"], "port": %s, "protocol": "http"}],
		"routes": [{"name": "test-route", "prefix": "/", "cluster_name": "test-backend", "hosts": ["*"], "timeout": 30}]}`,
		port,
	)
	got := call(t, s, "POST", s.XDS+"/v1/config", doc, 200)
	if got["status"] != "success" || got["version"] != "2" || got["live"] != true {
		t.Fatalf("answer %v", got)
	}
	if status, body := proxied(t, s, "localhost", "/"); status != 200 || body != "Hello from backend" {
		t.Fatalf("proxy answers %d %q", status, body)
	}
	version := call(t, s, "GET", s.XDS+"/v1/version", nil, 200)
	if version["version"] != "2" || version["revision"] != got["revision"] {
		t.Fatalf("version %v after %v", version, got)
	}
	call(t, s, "GET", s.XDS+"/healthz", nil, 200)

	for name, c := range map[string]struct {
		doc    string
		status int
		path   string
	}{
		"malformed":     {`{"version": "3", "services": [`, 400, "$"},
		"unknown field": {`{"servces": []}`, 400, "$"},
		"wrong type":    {`{"services": [{"name": "a", "hosts": "b", "port": 1}]}`, 400, "$.services[0].hosts"},
		"dangling": {
			`{"services": [], "routes": [{"name": "r", "prefix": "/", "cluster_name": "nobody"}]}`,
			422, "$.routes[0].cluster_name",
		},
		"bad prefix": {`{"services": [{"name": "a", "hosts": ["10.0.0.1"], "port": 80}], "routes": [{"name": ` +
			`"r", "prefix": "api", "cluster_name": "a"}]}`, 422, "$.routes[0].prefix"},
		"impossible port": {
			`{"services": [{"name": "a", "hosts": ["10.0.0.1"], "port": 70000}]}`, 422,
			"$.services[0].port",
		},
		"twice": {`{"services": [{"name": "a", "hosts": ["10.0.0.1"], "port": 80}, {"name": "a",` +
			` "hosts": ["10.0.0.1"], "port": 80}]}`, 422, "$.services[1].name"},
		"a key that stands twice": {`{"version": "1", "version": "2"}`, 400, "$.version"},
	} {
		t.Run(name, func(t *testing.T) {
			p := call(t, s, "POST", s.XDS+"/v1/config", c.doc, c.status)
			errs, _ := p["errors"].([]any)
			if len(errs) == 0 || errs[0].(map[string]any)["path"] != c.path {
				t.Fatalf("problem %v, want path %s", p, c.path)
			}
			if now := call(t, s, "GET", s.XDS+"/v1/version", nil, 200); now["revision"] != version["revision"] ||
				now["version"] != "2" {
				t.Fatalf("a refused document changed the version: %v", now)
			}
			if status, body := proxied(t, s, "localhost", "/"); status != 200 || body != "Hello from backend" {
				t.Fatalf("a refused document changed the proxy: %d %q", status, body)
			}
		})
	}
}

// TestRestart: a second run finds the configuration that the first one left.
func TestRestart(t *testing.T) {
	s := start(t)
	call(t, s, "PUT", s.API+"/v1/routes/kept?wait=live", `{"spec":{"hosts":["kept.example.com"],`+
		`"direct_response":{"status":200,"body":"kept"}}}`, 201)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, body := proxied(t, s, "kept.example.com", "/"); status != 200 || body != "kept" {
		t.Fatalf("after a restart the proxy answers %d %q", status, body)
	}
}

// TestHosts: which host finds which route.
func TestHosts(t *testing.T) {
	s := start(t, "--no-demo")
	route := func(name, hosts, path string) map[string]any {
		var h []string
		if err := json.Unmarshal([]byte(hosts), &h); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"kind": "Route", "name": name, "spec": map[string]any{
			"hosts": h,
			"path":  map[string]string{"prefix": path}, "direct_response": map[string]any{"status": 200, "body": name},
		}}
	}
	call(t, s, "POST", s.API+"/v1/apply?wait=live", map[string]any{"resources": []any{
		route("exact", `["a.example.com"]`, "/"), route("api", `["a.example.com"]`, "/api"),
		route("wild", `["*.example.com"]`, "/"),
		route("deep", `["*.deep.example.com"]`, "/"), route("narrow", `["narrow.example.com"]`, "/only"),
		route("rest", `["*"]`, "/"), route("address", `["[2001:db8::1]"]`, "/"),
	}}, 200)
	for _, c := range []struct{ host, path, want string }{
		{"a.example.com", "/", "exact"},
		{"A.Example.COM", "/", "exact"},
		{"a.example.com:8080", "/", "exact"},
		{"a.example.com.", "/", "exact"},
		{"a.example.com", "/api", "api"},
		{"a.example.com", "/api/x", "api"},
		{"a.example.com", "/apix", "exact"},
		{"b.example.com", "/", "wild"},
		{"B.example.com", "/", "wild"},
		{"b.example.com.", "/", "wild"},
		{"b.example.com.:8080", "/", "wild"},
		{"B.deep.example.com.", "/", "deep"},
		{"[2001:db8::1]", "/", "address"},
		{"[2001:db8::1]:8080", "/", "address"},
		{"x.deep.example.com", "/", "deep"},
		{"example.com", "/", "rest"},
		{"narrow.example.com", "/only", "narrow"},
		{"narrow.example.com", "/", ""}, // the host is known, so no wildcard takes it
		{"other.test", "/", "rest"},
	} {
		status, body := proxied(t, s, c.host, c.path)
		if c.want == "" && status == 404 {
			continue
		}
		if status != 200 || body != c.want {
			t.Errorf("%s%s: %d %q, want %q", c.host, c.path, status, body, c.want)
		}
	}
}
