package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// clusterStats counts what an Envoy did with its clusters: each change of one by CDS.
func clusterStats(t *testing.T, s *harness.System) string {
	t.Helper()
	status, raw, err := s.Call(t.Context(), "GET",
		s.Admin+"/stats?filter=^cluster_manager.cluster_(added|modified|removed)$", nil)
	if err != nil || status != 200 {
		t.Fatal(status, err)
	}
	return string(raw)
}

// TestEndpointSets: sets of endpoints that come, drain, and go are served as a service's own ones, without a change of
// a listener or a cluster. An endpoint that drains gets no new request, and finishes the one that it has. A rollback
// and an export leave them alone, and a service that has one stays.
func TestEndpointSets(t *testing.T) {
	s := start(t, "--no-demo")
	slow, began := make(chan struct{}), make(chan struct{}, 1)
	both := backends(t, says(200, "a"), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- struct{}{}
			<-slow
		}
		_, _ = io.WriteString(w, "b")
	})
	set := func(name string, status int, endpoints ...any) {
		t.Helper()
		answer := call(t, s, "PUT", s.API+"/v1/endpoint-sets/"+name+"?wait=live&timeout=20s", object{
			"owner": "discover/here",
			"spec":  object{"service": "web", "endpoints": endpoints},
		}, status)
		if l := answer["live"].(object); l["live"] != true {
			t.Fatal(name, l)
		}
	}
	with := func(e any, state string) object {
		out := maps.Clone(e.(object))
		out["state"] = state
		return out
	}
	bodies := func(n int) string {
		t.Helper()
		seen := map[string]int{}
		for range n {
			if status, body := proxied(t, s, "web.example.com", "/"); status != 200 {
				seen[fmt.Sprint(status)]++
			} else {
				seen[body]++
			}
		}
		return strings.Trim(fmt.Sprint(seen), "map")
	}
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{
		object{"kind": "Service", "name": "web", "spec": object{}},
		object{"kind": "Route", "name": "web", "spec": object{
			"hosts":    []string{"web.example.com"},
			"backends": []any{object{"service": "web"}},
		}},
	}}, 200)
	if got := bodies(3); got != "[503:3]" {
		t.Errorf("a service without endpoints: %s", got)
	}
	before, clusters := listenerStats(t, s), clusterStats(t, s)

	set("web-b", 201, both[1])
	if got := bodies(3); got != "[b:3]" {
		t.Errorf("the first set: %s", got)
	}
	set("web-a", 201, with(both[0], "ready"))
	if got := bodies(30); !strings.HasPrefix(got, "[a:") || !strings.Contains(got, " b:") || strings.Contains(got, "503") {
		t.Errorf("two sets: %s", got)
	}
	at := call(t, s, "GET", s.API+"/v1/status", nil, 200)["revision"].(float64)

	type answer struct {
		probe.Answer
		err error
	}
	finished := make(chan answer)
	go func() {
		for { // until it is b's turn
			c := probe.New(s.Proxy)
			a, _, err := c.Get("web.example.com", "/slow")
			c.Close()
			if err != nil || a.Body == "b" {
				finished <- answer{a, err}
				return
			}
		}
	}()
	select {
	case <-began:
	case <-time.After(10 * time.Second):
		t.Fatal("the slow request has not come to b after 10 s")
	}
	set("web-b", 200, with(both[1], "draining"))
	if got := bodies(20); got != "[a:20]" {
		t.Errorf("while b drains: %s", got)
	}
	call(t, s, "DELETE", s.API+"/v1/endpoint-sets/web-b?wait=live&timeout=20s", nil, 200)
	if got := bodies(10); got != "[a:10]" {
		t.Errorf("after b has gone: %s", got)
	}
	close(slow)
	if a := <-finished; a.err != nil || a.Status != 200 || a.Body != "b" {
		t.Errorf("the request that b had when it began to drain: %+v", a)
	}
	set("web-a", 200, with(both[0], "draining"))
	if got := bodies(3); got != "[503:3]" {
		t.Errorf("while all drain: %s", got)
	}
	set("web-a", 200, both[0])

	if after := listenerStats(t, s); !maps.Equal(before, after) {
		t.Errorf("the sets changed a listener: %v, before %v", after, before)
	}
	if after := clusterStats(t, s); after != clusters {
		t.Errorf("the sets changed a cluster:\n%sbefore\n%s", after, clusters)
	}

	refusal := call(t, s, "DELETE", s.API+"/v1/services/web", nil, 409)
	if !strings.Contains(fmt.Sprint(refusal), "EndpointSet/web-a") {
		t.Errorf("a service with a set: %v", refusal)
	}
	call(t, s, "PUT", s.API+"/v1/services/later", object{"spec": object{}}, 201)
	call(t, s, "PUT", s.API+"/v1/endpoint-sets/later", object{"spec": object{"service": "later", "endpoints": []any{}}},
		201)
	call(t, s, "POST", fmt.Sprintf("%s/v1/revisions/%.0f/rollback?wait=live", s.API, at), nil, 200)
	if got := bodies(10); got != "[a:10]" {
		t.Errorf("after a rollback to when b was there: %s", got)
	}
	call(t, s, "GET", s.API+"/v1/services/later", nil, 404)
	call(t, s, "GET", s.API+"/v1/endpoint-sets/later", nil, 404)

	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	if all := c.text("export"); strings.Contains(all, "EndpointSet") || !strings.Contains(all, "Service") {
		t.Errorf("an export has what was found:\n%s", all)
	}
	c.says(c.text("export", "endpoint-sets"), "kind: EndpointSet", "name: web-a")
}
