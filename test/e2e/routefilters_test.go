package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
)

// TestRouteFiltersComeAndGo: CORS and a rate limit of a route are in force when the write returns, on an exact host,
// one of a wildcard and the default, gone when it is taken away, and neither ever changes a listener: a WebSocket that
// was open before any of them is open in the end.
func TestRouteFiltersComeAndGo(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/ws?wait=live", `{"spec":{"hosts":["ws.test"],"backends":[{"service":"web"}],`+
		`"websocket":true}}`, 201)
	ws := visit(t, s, "ws.test")
	if status, _, _ := ws.get("/", "", "Upgrade: websocket", "Connection: Upgrade"); status != 101 {
		t.Fatalf("upgrade: %d", status)
	}
	put := func(name, host, more string) {
		t.Helper()
		hosts := ""
		if host != "" {
			hosts = fmt.Sprintf(`"hosts":[%q],`, host)
		}
		answer := call(t, s, "POST", s.API+"/v1/apply?wait=live", `{"resources":[{"kind":"Route","name":"`+name+`","spec":{`+
			hosts+more+`"backends":[{"service":"web"}]}}]}`, http.StatusOK)
		if l := answer["live"].(map[string]any); l["state"] != "live" {
			t.Fatalf("%s: %v", name, l)
		}
	}
	for _, c := range []struct{ route, hosts, host string }{
		{"exact", "a.test", "a.test"},
		{"wildcard", "*.b.test", "x.b.test"},
		{"capitals", "c.test", "C.Test"},
		{"default", "", "d.test"},
	} {
		put(c.route, c.hosts, "")
		v := visit(t, s, c.host)
		before := listenerStats(t, s)
		for round := range 3 {
			const preflight = "Access-Control-Request-Method: PUT"
			cors := func(want string) {
				t.Helper()
				_, _, h := v.ask("OPTIONS", "/", "Origin: https://page.test", preflight)
				if got := h.Get("Access-Control-Allow-Origin"); got != want {
					t.Errorf("%s, round %d: a preflight is answered with the origin %q, want %q", c.route, round, got, want)
				}
			}
			cors("")
			put(c.route, c.hosts, `"cors":{"allow_origins":[{"exact":"https://page.test"}],"allow_methods":["PUT"]},`)
			cors("https://page.test")
			put(c.route, c.hosts, `"local_rate_limit":{"requests":1,"per":"3600s"},`)
			cors("") // has taken the one that is allowed
			v.want(http.StatusTooManyRequests, "/", "")
			put(c.route, c.hosts, "")
			v.want(http.StatusOK, "/", "")
		}
		ws.say(c.route)
		if after := listenerStats(t, s); !maps.Equal(before, after) {
			t.Errorf("%s: a listener has changed: %v, before %v", c.route, after, before)
		}
	}
}

// TestWildcardsAreProtected: what a route asks of the filters in WASM holds where the route is found late, too, and
// nothing but them stands in the chain.
func TestWildcardsAreProtected(t *testing.T) {
	s := start(t, "--no-demo")
	call(t, s, "PUT", s.API+"/v1/auth-policies/staff", `{"spec":{"jwt":{"keys":[`+hmacKey("k1", firstSecret)+`]}}}`, 201)
	token := signed(t, "k1", firstSecret, nil)
	for name, hosts := range map[string]string{
		"x.test": `"hosts":["x.test"],`, "a.y.test": `"hosts":["*.y.test"],`,
		"z.test": "",
	} {
		for what, more := range map[string]string{"policy": `"auth_policy":"staff"`, "feature": `"features":["numa"]`} {
			answer := call(t, s, "POST", s.API+"/v1/apply?wait=live", `{"owner":"test","prune":true,`+
				`"resources":[{"kind":"Route","name":"r","spec":{`+
				hosts+more+`,"direct_response":{"status":200,"body":"ok"}}}]}`, http.StatusOK)
			if l := answer["live"].(map[string]any); l["state"] != "live" {
				t.Fatalf("%s, %s: %v", name, what, l)
			}
			for _, host := range []string{name, strings.ToUpper(name)} {
				v := visit(t, s, host)
				if what == "policy" {
					v.want(http.StatusUnauthorized, "/", "")
					v.want(http.StatusOK, "/", token)
				} else {
					v.want(http.StatusPaymentRequired, "/", "")
				}
			}
		}
	}
}
