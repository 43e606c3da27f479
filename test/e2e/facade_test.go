package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestDocumentOwnsItsOwn: POST /v1/config replaces what it has written before, and nothing else.
func TestDocumentOwnsItsOwn(t *testing.T) {
	s := start(t, "--no-demo")
	web, api := backend(t, "web"), backend(t, "api")
	call(t, s, "POST", s.API+"/v1/apply?wait=live",
		map[string]any{"owner": "team", "resources": []any{direct("another", "another", nil)}}, 200)
	service := func(name, port string) string {
		return fmt.Sprintf(`{"name":%q,"hosts":["127.0.0.1"],"port":%s,"protocol":"http"}`, name, port)
	}
	route := func(name, to string) string {
		return fmt.Sprintf(`{"name":%q,"prefix":"/","cluster_name":%q,"hosts":["%s.example.com"]}`, name, to, name)
	}
	post := func(version, services, routes string, status int) map[string]any {
		t.Helper()
		return call(t, s, "POST", s.XDS+"/v1/config", fmt.Sprintf(`{"version":%q,"services":[%s],"routes":[%s]}`, version,
			services, routes), status)
	}
	first := post("a", service("web", web)+","+service("api", api), route("one", "web")+","+route("two", "api"), 200)
	served(t, s, "one", "web")
	served(t, s, "two", "api")

	// The same again is no change; its version is the new one all the same.
	again := post("b", service("web", web)+","+service("api", api), route("one", "web")+","+route("two", "api"), 200)
	if again["revision"] != first["revision"] || again["changes"] != 0.0 || again["version"] != "b" ||
		again["live"] != true {
		t.Errorf("the same document again: %v", again)
	}

	// What another has written cannot be taken: nothing of the document is done.
	refused := post("c", service("web", api), route("another", "web"), 409)
	if errs, ok := refused["errors"].([]any); !ok || errs[0].(map[string]any)["path"] != "$.routes[0]" {
		t.Errorf("another's route: %v", refused)
	}
	served(t, s, "one", "web")
	if v := call(t, s, "GET", s.XDS+"/v1/version", nil, 200); v["version"] != "b" {
		t.Errorf("version %v", v)
	}

	post("d", service("api", api), route("one", "api"), 200)
	served(t, s, "one", "api")
	if status, _ := proxied(t, s, "two.example.com", "/"); status != 404 {
		t.Errorf("a route that is not in the document any more answers %d", status)
	}
	call(t, s, "GET", s.API+"/v1/services/web", nil, 404)
	served(t, s, "another", "another")

	// The version survives the server.
	if err := syscall.Kill(s.Pid("xds"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		// Until the Envoy is back, too: without one there is nothing to wait for below.
		if status, raw, err := s.Call(t.Context(), "GET", s.XDS+"/v1/version", nil); err != nil || status != 200 ||
			!strings.Contains(string(raw), `"proxies":1`) {
			return fmt.Sprintf("%d %s %v", status, raw, err)
		}
		return ""
	})
	if v := call(t, s, "GET", s.XDS+"/v1/version", nil, 200); v["version"] != "d" {
		t.Errorf("version %v after a restart", v)
	}

	// Without a version the revision is it; an empty document takes away what is this door's.
	empty := call(t, s, "POST", s.XDS+"/v1/config?allow_empty=true", `{"services":[],"routes":[]}`, 200)
	if empty["version"] != fmt.Sprint(empty["revision"]) {
		t.Errorf("version %v of revision %v", empty["version"], empty["revision"])
	}
	served(t, s, "another", "another")
	if status, _ := proxied(t, s, "one.example.com", "/"); status != 404 {
		t.Errorf("after an empty document its route answers %d", status)
	}

	// With the api down nothing can be stored; what is live stays, and the answer says so.
	down(t, s, func() error {
		post("e", service("web", web), route("one", "web"), 503)
		served(t, s, "another", "another")
		return nil
	}, "api")
}

// TestVersionAtEveryServer: whichever xDS server took the last document, each says its version, also one that has come
// after it.
func TestVersionAtEveryServer(t *testing.T) {
	s := start(t, "--no-demo")
	post := func(version string) {
		t.Helper()
		call(t, s, "POST", s.XDS+"/v1/config?allow_empty=true", fmt.Sprintf(`{"version":%q,"services":[],"routes":[]}`,
			version), 200)
	}
	post("a")
	_, second := secondXDS(t, s, t.TempDir())
	for _, want := range []string{"a", "b"} {
		if want != "a" {
			post(want)
		}
		eventually(t, func() string {
			if v := call(t, s, "GET", second+"/v1/version", nil, 200); v["version"] != want {
				return fmt.Sprintf("the second server says %v, not %q", v, want)
			}
			return ""
		})
	}
}
