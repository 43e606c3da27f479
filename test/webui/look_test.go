package webui

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/harness"
)

// TestEmpty looks at the pages of a system that holds nothing yet.
func TestEmpty(t *testing.T) {
	play(t, harness.ForTest(t, nil, "--no-demo"), nil, "03-empty")
}

// TestMany looks at lists and the topology of a system with thousands of routes, and measures them, has Lighthouse judge
// the overview and the lists, and measures what pages hold while events come: for a minute, or -minutes.
func TestMany(t *testing.T) {
	play(t, harness.ForTest(t, nil, "--no-demo"), nil, "05-many", "05-memory", "09-lighthouse")
}

// TestLook looks at every page, in both schemes, on a desk and on a phone, of a system like those that people run: three
// Envoys of one gateway, a node whose kernel drops packets, certificates that end soon, and an object that Envoy refuses.
func TestLook(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	strict(t, s)
	pids := map[string]int{}
	for _, id := range []string{"edge-ams-2", "edge-iad-1"} {
		e, err := s.StartEnvoy(t.Context(), id, s.GRPC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		pids[id] = e.Pid()
	}
	envoys, err := json.Marshal(pids)
	if err != nil {
		t.Fatal(err)
	}
	node(t, s, "edge-fra-1")
	certificates, err := json.Marshal(chains(t))
	if err != nil {
		t.Fatal(err)
	}
	port := backends(t)
	visitors(t, s)
	play(t, s, []string{
		"MARCHPROXY_ENVOYS=" + string(envoys), "MARCHPROXY_CHAINS=" + string(certificates),
		fmt.Sprintf("MARCHPROXY_BACKEND_PORT=%d", port),
	}, "04-every", "04-look")
}

// backends answer at every address of 10.20.0.0/16, which is this machine's for as long as the test runs, but for one
// that is ill.
func backends(t *testing.T) (port int) {
	t.Helper()
	const net16 = "10.20.0.0/16"
	// A run that was killed has left the route.
	out, err := exec.CommandContext(t.Context(), "ip", "route", "replace", "local", net16, "dev", "lo").CombinedOutput()
	if err != nil {
		t.Fatalf("ip route replace: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "route", "del", "local", net16, "dev", "lo").Run() })
	lis, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		ReadHeaderTimeout: time.Minute, Protocols: &protocols,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			switch {
			case strings.HasPrefix(at.String(), "10.20.5.12:"):
				w.WriteHeader(http.StatusServiceUnavailable)
			case r.URL.Path == "/grpc.health.v1.Health/Check":
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Trailer", "Grpc-Status")
				_, _ = w.Write([]byte{0, 0, 0, 0, 2, 8, 1}) // it serves
				w.Header().Set("Grpc-Status", "0")
			case r.URL.Path != "/healthz" && rand.IntN(60) == 0:
				w.WriteHeader(http.StatusInternalServerError)
			case r.URL.Path != "/healthz":
				time.Sleep(time.Duration(3+rand.ExpFloat64()*12) * time.Millisecond) // what the page shows as latency
			}
		}),
	}
	go func() { _ = server.Serve(lis) }() // closed at the end
	t.Cleanup(func() { _ = server.Close() })
	return lis.Addr().(*net.TCPAddr).Port
}

// visitors ask the system's Envoy for this and that until the test ends.
func visitors(t *testing.T, s *harness.System) {
	t.Helper()
	asked := []string{
		"shop.example.com/", "shop.example.com/", "shop.example.com/", "shop.example.com/search?q=shoes", "shop.example.com/search",
		"shop.example.com/robots.txt", "mail.example.com/", "id.example.com/login", "old-shop.example.com/",
		"api.example.com/v1/orders/", "shop.example.org/", "nobody.example.com/",
	}
	// Each connection comes to another one of the Envoys that share the port.
	client := &http.Transport{DisableKeepAlives: true}
	go func() {
		for i := 0; ; i++ {
			pause := 60 + 35*math.Sin(float64(i)/90)
			select {
			case <-time.After(time.Duration(pause) * time.Millisecond):
			case <-t.Context().Done():
				return
			}
			host, path, _ := strings.Cut(asked[rand.IntN(len(asked))], "/")
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Proxy+"/"+path, nil)
			if err != nil {
				return
			}
			req.Host = host
			if resp, err := client.RoundTrip(req); err == nil { // before there are routes nobody listens
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}
	}()
}

type pair struct {
	Chain string `json:"chain"`
	Key   string `json:"private_key,omitempty"`
}

// chains are certificates for the system to hold.
func chains(t *testing.T) map[string]pair {
	t.Helper()
	ca, err := authority.New("Example Corp Root CA", 20*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]pair{"example-corp-root": {Chain: ca.PEM}}
	for name, days := range map[string]int{"shop.example.com": 61, "*.internal.example.com": 5, "api.example.com": 88} {
		lasts := time.Duration(days) * 24 * time.Hour
		chain, key, err := ca.Issue(authority.Server(lasts, name, "www."+strings.TrimPrefix(name, "*.")))
		if err != nil {
			t.Fatal(err)
		}
		out[strings.NewReplacer("*.", "wildcard-", ".", "-").Replace(name)] = pair{chain, key}
	}
	return out
}

// node is an agent that runs an Envoy of the gateway edge, and guards the end of a wire over which too much is sent.
func node(t *testing.T, s *harness.System, id string) {
	t.Helper()
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	s.Want(t, "PUT", s.API+"/v1/gateways/edge", map[string]any{"spec": map[string]any{
		"listeners": []any{map[string]any{"name": "http", "port": ports[0], "address": "127.0.0.1"}},
		"api_keys":  []any{map[string]any{"name": "bootstrap", "key": key}},
	}}, 201)
	a := harness.StartNode(t, s, "AGENT_ID="+id, "NODE_ID="+id, "NODE_LABELS=region=eu-central,rack=b12")
	wire := a.Wire
	limit := `{"spec":{"packets_per_second":200,"burst":400,"node_selector":{"region":"eu-central"},"deny":["` +
		wire.Clients[1].String() + `"],"filters":{"tcp_flags":true,"land":true}}}`
	harness.Eventually(t, func() string { // until the api knows of the agent there is nobody to wait for
		_, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/rate-limit-policies/edge-flood?wait=live", limit)
		if err != nil || !strings.Contains(string(raw), `"state":"live"`) {
			return fmt.Sprintf("the node does not enforce its policy: %s %v\n%s", raw, err, a.Log())
		}
		return ""
	})
	for _, client := range wire.Clients {
		c, err := wire.Dial(t.Context(), "udp4", client, wire.Node.String()+":9")
		if err != nil {
			t.Fatal(err)
		}
		for range 3_000 {
			_, _ = c.Write([]byte("marchproxy")) // nobody listens there, and the kernel says so of what gets through
		}
		_ = c.Close() // nothing is lost with it
	}
}
