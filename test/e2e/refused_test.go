package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tooLarge is a regular expression that passes every check of the api, and that an Envoy refuses whose
// runtime has been told to take smaller ones only (see strict): a defect of the check, as it were.
const tooLarge = "/[a-z]{1,300}"

// TestOneBadObject: what Envoy refuses is quarantined alone; its neighbours in the same revision go live;
// the object says so, with Envoy's reason; correcting it clears that.
func TestOneBadObject(t *testing.T) {
	s := start(t, "--no-demo")
	strict(t, s)
	call(t, s, "PUT", s.API+"/v1/routes/bad?wait=live", direct("bad", "before", nil), 201)

	resources := []any{direct("bad", "after", map[string]any{"path": map[string]any{"regex": tooLarge}})}
	for i := range 200 {
		resources = append(resources, direct(fmt.Sprintf("good%d", i), "good", nil))
	}
	answer := call(t, s, "POST", s.API+"/v1/apply?wait=live", map[string]any{"resources": resources}, 202)
	live := answer["live"].(map[string]any)
	if live["state"] != "rejected" || !strings.Contains(live["reason"].(string), "regex") {
		t.Fatalf("live %v", live)
	}
	// The neighbours are live, or soon: the answer comes as soon as the culprit is known.
	call(t, s, "PUT", s.API+"/v1/routes/next?wait=live", direct("next", "next", nil), 201)
	for i := range 200 {
		if status, body := proxied(t, s, fmt.Sprintf("good%d.example.com", i), "/"); status != 200 || body != "good" {
			t.Fatalf("good%d: %d %q", i, status, body)
		}
	}
	if status, body := proxied(t, s, "bad.example.com", "/"); status != 200 || body != "before" {
		t.Fatalf("the refused route's last good version is not served: %d %q", status, body)
	}
	object := call(t, s, "GET", s.API+"/v1/routes/bad", nil, 200)
	if st := object["status"].(map[string]any); st["state"] != "rejected" ||
		!strings.Contains(st["reason"].(string), "regex") {
		t.Fatalf("status of the refused route: %v", st)
	}
	if st := call(t, s, "GET", s.API+"/v1/routes/good1", nil, 200)["status"].(map[string]any); st["state"] != "live" {
		t.Fatalf("status of a good route: %v", st)
	}
	if rejected := call(t, s, "GET", s.API+"/v1/status", nil, 200)["rejected"].([]any); len(rejected) != 1 ||
		rejected[0].(map[string]any)["name"] != "bad" {
		t.Fatalf("rejected: %v", rejected)
	}

	call(t, s, "PUT", s.API+"/v1/routes/bad?wait=live", direct("bad", "corrected", nil), 200)
	if status, body := proxied(t, s, "bad.example.com", "/"); status != 200 || body != "corrected" {
		t.Fatalf("after the correction: %d %q", status, body)
	}
	if rejected := call(t, s, "GET", s.API+"/v1/status", nil, 200)["rejected"].([]any); len(rejected) != 0 {
		t.Fatalf("still rejected: %v", rejected)
	}
}

// TestLastGoodKeepsItsCluster: a route is pointed away from a service by a version that Envoy refuses, and
// the service is deleted with it. The last good version still sends traffic there, also on an Envoy that
// joins later.
func TestLastGoodKeepsItsCluster(t *testing.T) {
	s := start(t, "--no-demo")
	strict(t, s)
	service := func(name, says string) map[string]any {
		return map[string]any{
			"kind": "Service", "name": name,
			"spec": map[string]any{"endpoints": []any{map[string]any{
				"host": "127.0.0.1",
				"port": json.Number(backend(t, says)),
			}}},
		}
	}
	route := func(service string, path any) map[string]any {
		return map[string]any{"kind": "Route", "name": "r", "spec": map[string]any{
			"hosts": []string{"r.example.com"},
			"path":  path, "backends": []any{map[string]any{"service": service}},
		}}
	}
	apply := func(status int, resources ...any) {
		t.Helper()
		call(t, s, "POST", s.API+"/v1/apply?wait=live", map[string]any{"owner": "o", "prune": true, "resources": resources},
			status)
	}
	two := service("two", "two")
	apply(200, service("one", "one"), route("one", map[string]string{"prefix": "/"}))
	apply(202, two, route("two", map[string]string{"regex": tooLarge}))
	if status, body := proxied(t, s, "r.example.com", "/"); status != 200 || body != "one" {
		t.Fatalf("the last good version is not served: %d %q", status, body)
	}
	old := s.Pid("envoy")
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if body, err := try(s, "r.example.com"); s.Pid("envoy") == old || err != nil || body != "one" {
			return fmt.Sprintf("an Envoy that joined answers %q %v", body, err)
		}
		return ""
	})
	// Nor does a restart of the xDS server forget it: it still knows what was refused, and what is served
	// in its place, to an Envoy that joins then too.
	for _, name := range []string{"xds", "envoy"} {
		old := s.Pid(name)
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			if now := s.Pid(name); now == old || now == 0 {
				return name + " does not come back"
			}
			return ""
		})
	}
	eventually(t, func() string {
		if body, err := try(s, "r.example.com"); err != nil || body != "one" {
			return fmt.Sprintf("after a restart of both: %q %v", body, err)
		}
		return ""
	})
	if st := call(t, s, "GET", s.API+"/v1/routes/r", nil, 200)["status"].(map[string]any); st["state"] != "rejected" ||
		!strings.Contains(fmt.Sprint(st["reason"]), "regex") {
		t.Fatalf("status of the refused route after a restart: %v", st)
	}
	apply(200, two, route("two", map[string]string{"prefix": "/"}))
	if status, body := proxied(t, s, "r.example.com", "/"); status != 200 || body != "two" {
		t.Fatalf("after the correction: %d %q", status, body)
	}
	if err := s.Doctor(t.Context(), 20*time.Second); err != nil { // the pinned cluster goes, after its time
		t.Fatal(err)
	}
}
