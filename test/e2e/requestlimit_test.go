package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// clientAt sends requests from one of the loopback addresses, each on a connection of its own: a limit by
// connection would let them all through.
type clientAt struct {
	*http.Client
	url string
}

func newClientAt(s *harness.System, address string) clientAt {
	return clientAt{&http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext,
	}}, "http://" + s.Proxy}
}

// get sends n requests and counts the answers; header is that of the last 429.
func (c clientAt) get(t *testing.T, n int) (passed, limited int, header http.Header) {
	t.Helper()
	for range n {
		resp, err := c.Get(c.url)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body) // only the status counts
		_ = resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
			passed++
		case http.StatusTooManyRequests:
			limited++
			header = resp.Header
		default:
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	return passed, limited, header
}

// TestRequestsAreLimitedByClient: each client address has a bucket of its own, whatever its connections;
// the policy with the longest CIDR counts; who is allowed is not counted.
func TestRequestsAreLimitedByClient(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	policies := s.API + "/v1/rate-limit-policies/"
	call(t, s, "PUT", s.API+"/v1/routes/r", `{"spec":{"direct_response":{"status":200,"body":"ok"}}}`, 201)
	call(t, s, "PUT", policies+"everyone?wait=live", `{"spec":{"requests_per_second":1,"requests_burst":5,`+
		`"allow":["127.0.0.4"]}}`, 201)
	call(t, s, "PUT", policies+"partners?wait=live", `{"spec":{"cidrs":["127.0.0.8/29"],"requests_per_second":1,`+
		`"requests_burst":20}}`, 201)
	call(t, s, "PUT", policies+"partner?wait=live", `{"spec":{"cidrs":["127.0.0.9"],"requests_per_second":1,`+
		`"requests_burst":30}}`, 201)
	const sent = 60
	for _, x := range []struct {
		from  string
		burst int
	}{{"127.0.0.2", 5}, {"127.0.0.3", 5}, {"127.0.0.10", 20}, {"127.0.0.9", 30}, {"127.0.0.4", sent}} {
		passed, _, header := newClientAt(s, x.from).get(t, sent)
		if passed < x.burst || passed > x.burst+sent/10 { // a token a second comes back meanwhile
			t.Errorf("%s: %d of %d requests passed, want %d and a few", x.from, passed, sent, x.burst)
		}
		if x.burst == sent {
			continue
		}
		for name, want := range map[string]string{
			"Ratelimit": `;r=0;t=1`, "Ratelimit-Policy": `;q=1;w=1`,
			"X-Ratelimit-Remaining": "0", "Retry-After": "1",
		} {
			if got := header.Get(name); len(got) < len(want) || got[len(got)-len(want):] != want {
				t.Errorf("%s: header %s is %q, want …%s", x.from, name, got, want)
			}
		}
	}
	call(t, s, "DELETE", policies+"everyone?wait=live", nil, 200)
	if passed, _, _ := newClientAt(s, "127.0.0.2").get(t, sent); passed != sent {
		t.Errorf("after the policy's deletion %d of %d requests passed", passed, sent)
	}
}

// TestLimitsDisturbNoConnection: the first limit comes, changes and the last one goes under an open
// connection and a running WebSocket, and no listener is touched. Buckets are full after a change of
// requests, and not after one of something else. The metrics filter stands before, and counts refusals.
func TestLimitsDisturbNoConnection(t *testing.T) {
	s := start(t, "--no-demo", "--concurrency", "2")
	policies := s.API + "/v1/rate-limit-policies/"
	call(t, s, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/ws", `{"spec":{"hosts":["ws.test"],"backends":[{"service":"web"}],`+
		`"websocket":true}}`, 201)
	call(t, s, "PUT", s.API+"/v1/routes/r?wait=live", `{"spec":{"direct_response":{"status":200,"body":"ok"}}}`, 201)
	ws := visit(t, s, "ws.test")
	if status, _, _ := ws.get("/", "", "Upgrade: websocket", "Connection: Upgrade"); status != 101 {
		t.Fatalf("upgrade: %d", status)
	}
	v := visit(t, s, "a.test")
	v.want(200, "/", "")
	updates := func() string {
		_, raw, err := s.Call(t.Context(), "GET",
			s.Admin+"/stats?filter=listener_manager.(lds.update_success|listener_|total_.*draining)", nil)
		if err != nil || len(raw) == 0 {
			t.Fatal(err)
		}
		return string(raw)
	}
	before := updates()
	limited := 0
	get := func() int {
		status, _, header := v.get("/", "")
		if status == 429 {
			limited++
			if header.Get("Retry-After") != "1" {
				t.Errorf("a refusal without Retry-After: %v", header)
			}
		}
		return status
	}
	put := func(name, spec string, status int) {
		t.Helper()
		if l := call(t, s, "PUT", policies+name+"?wait=live", `{"spec":{`+spec+`}}`,
			status)["live"].(map[string]any); l["state"] != "live" {
			t.Fatalf("%s: %v", name, l)
		}
	}
	pass := func(least, most int) { // of 50; a token a second comes back meanwhile
		t.Helper()
		passed := 0
		for range 50 {
			if get() == 200 {
				passed++
			}
		}
		if passed < least || passed > most {
			t.Errorf("%d requests passed, want %d to %d", passed, least, most)
		}
	}

	put("everyone", `"requests_per_second":1,"requests_burst":20`, 201)
	pass(20, 30)
	put("everyone", `"requests_per_second":1,"requests_burst":20,"packets_per_second":100000`, 200)
	pass(0, 10)
	put("everyone", `"requests_per_second":1,"requests_burst":30`, 200)
	pass(30, 40)
	call(t, s, "DELETE", policies+"everyone?wait=live", nil, 200)
	for range 40 {
		v.want(200, "/", "")
	}
	ws.say("still there")
	if now := updates(); now != before {
		t.Errorf("Envoy had %s\nnow %s", before, now)
	}
	counted := regexp.MustCompile(`(?m)^marchproxy_requests_total\{.*route="r".*status="4xx".*\} (\d+)$`)
	eventually(t, func() string {
		_, raw, err := s.Call(t.Context(), "GET", s.Admin+"/stats/prometheus?usedonly", nil)
		if m := counted.FindSubmatch(raw); err != nil || m == nil || string(m[1]) != strconv.Itoa(limited) {
			return fmt.Sprintf("%d requests were refused, the figures say %s (%v)", limited, m, err)
		}
		return ""
	})
}
