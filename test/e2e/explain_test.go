package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestExplain: the command line says what Envoy then does. That it holds for many configurations is shown by check-explain.
func TestExplain(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	c.file("shop.yaml", `
kind: AuthPolicy
name: staff
spec: {tokens: [{name: ci, value: c2VjcmV0LXRva2VuLW9mLWEtbWFjaGluZQ==}]}
---
kind: Route
name: shop
spec: {hosts: [shop.test], auth_policy: staff, direct_response: {status: 200, body: "the shop\n"}}
---
kind: Route
name: away
spec: {hosts: [shop.test], path: {prefix: /old}, methods: [GET], redirect: {prefix: /new, status: 308}}
`)
	c.file("headers.txt", "Authorization: Bearer c2VjcmV0LXRva2VuLW9mLWEtbWFjaGluZQ==\n")
	c.run(0, "apply", "-f", "shop.yaml", "--wait")
	out, _ := c.run(0, "explain", "http://shop.test/", "--source", "203.0.113.7")
	c.says(out, "401: policy staff refuses it (auth_missing)", "shop.test has routes of its own",
		"path: is neither /old nor below it", "matches")
	out, _ = c.run(0, "explain", "http://shop.test/", "-X", "POST", "-H", "@headers.txt")
	c.says(out, "200: route shop answers", "policy staff lets it pass")
	out, _ = c.run(0, "explain", "http://Shop.test:80/old/x?y#z")
	c.says(out, "308: route away redirects to http://Shop.test/new/x?y")
	out, _ = c.run(0, "explain", "http://nobody.test")
	c.says(out, "404: no route serves nobody.test")
	for _, args := range []string{
		"shop.test", "ftp://shop.test/", "http://me:secret@shop.test/", "http://shop.test/ --listener none", "https://shop.test/",
		"http://shop.test/ -H nothing", "http://shop.test/ --source here", "http://shop.test/ -X CONNECT",
	} {
		if _, e := c.run(1, append([]string{"explain"}, strings.Fields(args)...)...); e == "" {
			t.Errorf("%s: nothing is said", args)
		}
	}
	for path, header := range map[string]http.Header{
		"/": {}, "/old/x?y": {}, "/a%2Fb": {}, "/x": {"Authorization": {"Bearer c2VjcmV0LXRva2VuLW9mLWEtbWFjaGluZQ=="}},
		"/y": {"Authorization": {"Bearer x"}},
	} {
		body := map[string]any{"host": "shop.test", "path": path}
		var list []any
		for name, v := range header {
			list = append(list, map[string]any{"name": name, "value": v[0]})
		}
		if len(list) > 0 {
			body["headers"] = list
		}
		said := call(t, s, "POST", s.API+"/v1/explain", body, 200)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Proxy+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host, r.Header = "shop.test", header
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		location, _ := said["location"].(string)
		if fmt.Sprint(said["status"]) != fmt.Sprint(resp.StatusCode) || location != resp.Header.Get("Location") {
			t.Errorf("%s: Envoy says %d %s, and was said to say %v", path, resp.StatusCode, resp.Header.Get("Location"), said)
		}
	}
}
