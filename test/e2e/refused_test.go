package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// tooLarge is a regular expression that RE2 takes and Envoy's bootstrap limits: its compiled program is
// larger than re2.max_program_size. The api's check does not know the size of Envoy's programs.
const tooLarge = "/([a-z]{1,300}[0-9]{1,300}){1,2}"

func direct(name, body string, more map[string]any) map[string]any {
	spec := map[string]any{"hosts": []string{name + ".example.com"}, "direct_response": map[string]any{"status": 200, "body": body}}
	for k, v := range more {
		spec[k] = v
	}
	return map[string]any{"kind": "Route", "name": name, "spec": spec}
}

// TestOneBadObject: what Envoy refuses is quarantined alone; its neighbours in the same revision go live;
// the object says so, with Envoy's reason; correcting it clears that.
func TestOneBadObject(t *testing.T) {
	s := start(t, "--no-demo")
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
	if st := object["status"].(map[string]any); st["state"] != "rejected" || !strings.Contains(st["reason"].(string), "regex") {
		t.Fatalf("status of the refused route: %v", st)
	}
	if st := call(t, s, "GET", s.API+"/v1/routes/good1", nil, 200)["status"].(map[string]any); st["state"] != "live" {
		t.Fatalf("status of a good route: %v", st)
	}
	if rejected := call(t, s, "GET", s.API+"/v1/status", nil, 200)["rejected"].([]any); len(rejected) != 1 || rejected[0].(map[string]any)["name"] != "bad" {
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
