package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/probe"
)

// TestPoliciesComeAndGo: a policy and the route that names it come and go in one write, again and again,
// under requests that are good with it and without: none fails.
func TestPoliciesComeAndGo(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	token := signed(t, "k1", firstSecret, nil)
	apply := func(k int, protected bool) {
		t.Helper()
		resources := `{"kind":"Route","name":"r","spec":{"hosts":["a.test"],"direct_response":{"status":200,"body":"ok"}}}`
		if protected {
			resources = fmt.Sprintf(`{"kind":"AuthPolicy","name":"p%d","spec":{"jwt":{"keys":[%s]}}},
				{"kind":"Route","name":"r","spec":{"hosts":["a.test"],"auth_policy":"p%d","direct_response":{"status":200,"body":"ok"}}}`, k, hmacKey("k1", firstSecret), k)
		}
		answer := call(t, s, "POST", s.API+"/v1/apply?wait=live", `{"owner":"test","prune":true,"resources":[`+
			resources+`]}`, 200)
		if l := answer["live"].(map[string]any); l["state"] != "live" {
			t.Fatalf("round %d: %v", k, l)
		}
	}
	apply(0, false)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		c := probe.New(s.Proxy)
		defer c.Close()
		var wrong error
		for n := 0; ; n++ {
			select {
			case <-stop:
				if n < 100 {
					wrong = errors.Join(wrong, fmt.Errorf("only %d requests were sent", n))
				}
				done <- wrong
				return
			default:
			}
			if a, _, err := c.Get("a.test", "/", "Authorization: Bearer "+token); err != nil || a.Status != 200 {
				wrong = errors.Join(wrong, fmt.Errorf("request %d: %d %s", n, a.Status, a.Body), err)
			}
		}
	}()
	bare := visit(t, s, "a.test")
	for k := range 40 {
		apply(k, k%2 == 0)
		want := 200
		if k%2 == 0 {
			want = 401
		}
		bare.want(want, "/", "")
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestExceptionsToTheGatewaysPolicy: the filter reads what routes say only while some route says something. The
// route comes and goes between no policy, one of its own and the gateway's, under requests to its neighbour, and
// each is in force when the write returns. An exception that goes on because Envoy refused its successor stays one.
func TestExceptionsToTheGatewaysPolicy(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	for name, key := range map[string]string{
		"everyone": hmacKey("k1", firstSecret),
		"admins":   hmacKey("k2", secondSecret),
	} {
		call(t, s, "PUT", s.API+"/v1/auth-policies/"+name, `{"spec":{"jwt":{"keys":[`+key+`]}}}`, 201)
	}
	call(t, s, "PATCH", s.API+"/v1/gateways/default", `{"spec":{"auth_policy":"everyone"}}`, 200)
	call(t, s, "PUT", s.API+"/v1/routes/same?wait=live", direct("same", "ok", nil), 201)
	everyone, admins := signed(t, "k1", firstSecret, nil), signed(t, "k2", secondSecret, nil)

	stop, done := make(chan struct{}), make(chan string, 1)
	go func() {
		for n := 0; ; n++ {
			wrong := answered(s, "same.example.com", everyone, 200, "ok") + answered(s, "same.example.com", admins, 401, "")
			select {
			case <-stop:
				if n < 50 {
					wrong += fmt.Sprintf("only %d rounds were asked", n)
				}
				done <- wrong
				return
			default:
			}
			if wrong != "" {
				done <- wrong
				return
			}
		}
	}()
	check := func(when any, policy string) {
		t.Helper()
		for token, passes := range map[string]bool{everyone: policy != "admins", admins: policy == "admins" ||
			policy == "none"} {
			status := 401
			if passes {
				status = 200
			}
			if wrong := answered(s, "x.example.com", token, status, ""); wrong != "" {
				t.Errorf("%v, policy %q: %s", when, policy, wrong)
			}
		}
	}
	put := func(policy, body string, status int, more object) {
		t.Helper()
		spec := object{}
		if policy != "" {
			spec["auth_policy"] = policy
		}
		maps.Copy(spec, more)
		call(t, s, "PUT", s.API+"/v1/routes/x?wait=live", direct("x", body, spec), status)
	}
	put("", "new", 201, nil)
	for k := range 30 {
		policy := []string{"none", "", "admins", "none", "admins", ""}[k%6]
		put(policy, fmt.Sprint(k), 200, nil)
		check(k, policy)
	}
	// looks says whether the filter reads what routes say.
	looks := func() bool {
		_, raw, err := s.AdminSocket().Do(t.Context(), "GET", "/config_dump")
		if err != nil || !strings.Contains(string(raw), `\"everyone\"`) {
			t.Fatalf("the filter's configuration is not in the dump (%v)", err)
		}
		return strings.Contains(string(raw), `\"per_route\":true`)
	}
	eventually(t, func() string {
		if looks() {
			return "the filter still looks at routes, of which none says anything"
		}
		return ""
	})
	check("at last", "")
	close(stop)
	if wrong := <-done; wrong != "" {
		t.Error(wrong)
	}

	strict(t, s)
	put("none", "before", 200, nil)
	if !looks() {
		t.Error("the filter does not look at a route that says something")
	}
	put("", "after", 202, object{"path": object{"regex": tooLarge}})
	for t0 := time.Now(); time.Since(t0) < 7*time.Second; {
		check(time.Since(t0), "none")
	}
	again(t, s, "xds", "envoy")
	settled(t, s, "x.example.com", admins, 200, "before")
	check("after a restart", "none")
	if !looks() {
		t.Error("after a restart the filter does not look at a route that says something")
	}
	put("", "corrected", 200, nil)
	check("corrected", "")
}

// TestRejectedFilterConfig: where Envoy cannot load the filter, no route is served without its policy, the policy
// says why, and all comes right when the cause is gone.
func TestRejectedFilterConfig(t *testing.T) {
	cache := cacheWithoutFilters(t)
	s := start(t, "--no-demo", "--cache-dir", cache)
	found, err := filepath.Glob(filepath.Join(cache, "wasm", "auth-*.wasm"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	if err := os.Rename(found[0], found[0]+".away"); err != nil {
		t.Fatal(err)
	}
	call(t, s, "PUT", s.API+"/v1/routes/open?wait=live",
		`{"spec":{"hosts":["open.test"],"direct_response":{"status":200,"body":"ok"}}}`, 201)
	answer := call(t, s, "POST", s.API+"/v1/apply?wait=live", `{"resources":[{"kind":"AuthPolicy","name":"staff",`+
		`"spec":{"jwt":{"keys":[`+hmacKey("k1", firstSecret)+`]}}},
		{"kind":"Route","name":"private","spec":{"hosts":["private.test"],"auth_policy":"staff","direct_response":{"status":200,"body":"secret"}}}]}`, 202)
	if l := answer["live"].(map[string]any); l["state"] != "rejected" {
		t.Errorf("live: %v", l)
	}
	if status, body := proxied(t, s, "private.test", "/"); status != 404 {
		t.Errorf("a route is served without its policy: %d %s", status, body)
	}
	if status, _ := proxied(t, s, "open.test", "/"); status != 200 {
		t.Errorf("a route without a policy: %d", status)
	}
	for _, path := range []string{"/v1/auth-policies/staff", "/v1/routes/private"} {
		if o := fmt.Sprint(call(t, s, "GET", s.API+path, nil, 200)["status"]); !strings.Contains(o, "rejected") ||
			!strings.Contains(o, ".wasm") {
			t.Errorf("%s: status %s", path, o)
		}
	}
	if err := os.Rename(found[0]+".away", found[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if status, _ := proxied(t, s, "private.test", "/"); status != 401 {
			return fmt.Sprintf("after the file is back: %d", status)
		}
		return ""
	})
}

// TestUnusedFiltersGo: a gateway's license and policy hold no request any more once they are taken away, though a route
// has a setting that another filter reads, or says that it needs no credentials.
func TestUnusedFiltersGo(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "1")
	call(t, s, "POST", s.API+"/v1/apply", object{"resources": []any{
		object{"kind": "AuthPolicy", "name": "p", "spec": object{
			"tokens": []any{object{"name": "ci", "value": "a-token-of-sixteen-characters"}},
		}},
		object{"kind": "License", "name": "l", "spec": object{"gates": []any{
			object{"feature": "more", "paths": []string{"/more"}},
		}}},
		object{"kind": "Route", "name": "open", "spec": object{
			"hosts": []string{"open.test"}, "auth_policy": "none", "direct_response": object{"status": 200},
		}},
		object{"kind": "Route", "name": "plain", "spec": object{
			"hosts": []string{"plain.test"}, "direct_response": object{"status": 200},
		}},
	}}, 200)
	asked := func(auth, license any, plain, more int) {
		t.Helper()
		call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live",
			object{"spec": object{"auth_policy": auth, "license": license}}, 200)
		c := probe.New(s.Proxy)
		defer c.Close()
		for _, x := range []struct {
			host, path string
			status     int
		}{{"plain.test", "/", plain}, {"open.test", "/more", more}, {"open.test", "/", 200}} {
			if a, _, err := c.Get(x.host, x.path); err != nil || a.Status != x.status {
				t.Errorf("with policy %v and license %v %s%s answers %d (%v), want %d", auth, license, x.host, x.path, a.Status,
					err, x.status)
			}
		}
	}
	asked("p", "l", 401, 402)
	asked("p", nil, 401, 200)
	asked(nil, "l", 200, 402)
	asked(nil, nil, 200, 200)
}
