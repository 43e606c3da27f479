package webui

import (
	"encoding/json"
	"fmt"
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

// TestMany looks at lists and the topology of a system with thousands of routes, and measures them.
func TestMany(t *testing.T) {
	play(t, harness.ForTest(t, nil, "--no-demo"), nil, "05-many")
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
	play(t, s, []string{"MARCHPROXY_ENVOYS=" + string(envoys), "MARCHPROXY_CHAINS=" + string(certificates)}, "04-look")
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
