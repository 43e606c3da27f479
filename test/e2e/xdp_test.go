package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// guard is a node with one client behind a wire, and an agent.
type guard struct {
	*harness.System
	*harness.Wire
	*harness.Agent
	policies string
	// received counts the packets that got through, by client.
	received [2]atomic.Int64
	sinks    string
}

// newGuard starts a system and an agent that guards the wire's end.
func newGuard(t *testing.T, env ...string) *guard {
	t.Helper()
	g := newWire(t, start(t, "--no-demo"))
	g.begin(t, env)
	return g
}

// newWire makes a wire beside a system, at whose end nobody guards yet.
func newWire(t *testing.T, s *harness.System) *guard {
	t.Helper()
	g := &guard{System: s, policies: s.API + "/v1/rate-limit-policies/"}
	var err error
	if g.Wire, err = harness.NewWire(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Wire.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// begin starts the agent that guards the wire's end, by way of another program where one is named.
func (g *guard) begin(t *testing.T, env []string, wrap ...string) {
	t.Helper()
	nats, err := g.NATS()
	if err != nil {
		t.Fatal(err)
	}
	g.Agent, err = harness.StartAgent(append([]string{
		"NATS_URL=" + nats, "XDP_INTERFACE=" + g.Interface, "XDP_PIN_DIR=" + g.Pins, "MARCHPROXY_STATE_DIR=" + t.TempDir(),
		"AGENT_ID=" + g.Namespace, "NODE_LABELS=wire=" + g.Namespace,
	}, env...), wrap...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-g.Exited():
		default:
			_ = g.Agent.Stop(syscall.SIGKILL) // whatever state it is in; its Envoy ends with it
		}
	})
	g.sink(t)
	g.joins(t)
}

// joins waits until the api knows of the agent: until then a policy has nobody to wait for.
func (g *guard) joins(t *testing.T) {
	t.Helper()
	spec := `{"spec":{"packets_per_second":1000000,"node_selector":{"wire":"` + g.Namespace + `"}}}`
	eventually(t, func() string {
		status, raw, err := g.Call(t.Context(), "PUT", g.policies+"joins?wait=live", spec)
		if err != nil || status > 202 || strings.Contains(string(raw), "no_agents") {
			return fmt.Sprintf("the agent has not joined: %d %s %v", status, raw, err)
		}
		return ""
	})
	call(t, g.System, "DELETE", g.policies+"joins?wait=live", nil, 200)
}

// sink receives UDP at the guarded end.
func (g *guard) sink(t *testing.T) {
	t.Helper()
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(g.Node, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.(*net.UDPConn).SetReadBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() }) // ends the reader
	g.sinks = pc.LocalAddr().String()
	go func() {
		b := make([]byte, 2048)
		for {
			_, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			for i, c := range g.Clients {
				if from.(*net.UDPAddr).AddrPort().Addr().Unmap() == c {
					g.received[i].Add(1)
				}
			}
		}
	}()
}

// put writes a policy for this wire's node, and waits until it is enforced.
func (g *guard) put(t *testing.T, name, spec string, status int) map[string]any {
	t.Helper()
	spec = strings.TrimSuffix(spec, "}") + `,"node_selector":{"wire":"` + g.Namespace + `"}}`
	answer := call(t, g.System, "PUT", g.policies+name+"?wait=live", `{"spec":`+spec+`}`, status)
	if l := answer["live"].(map[string]any); l["state"] != "live" || l["agents"] != 1.0 {
		t.Fatalf("%s: %v\n%s", spec, l, g.Log())
	}
	return answer
}

func (g *guard) client(t *testing.T, i int) net.Conn {
	t.Helper()
	c, err := g.Dial(t.Context(), "udp4", g.Clients[i], g.sinks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // nothing is lost with it
	return c
}

// send sends n packets from client i and returns how many of them got through: a packet of the other
// client, which nobody limits, comes after them on the same wire.
func (g *guard) send(t *testing.T, i, n int) int64 {
	t.Helper()
	mine, other := g.client(t, i), g.client(t, 1-i)
	before, mark := g.received[i].Load(), g.received[1-i].Load()
	for range n {
		if _, err := mine.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Write([]byte("mark")); err != nil {
		t.Fatal(err)
	}
	if err := harness.Await(within(t), func() bool { return g.received[1-i].Load() > mark }); err != nil {
		t.Fatalf("the other client's packet does not arrive: %v", err)
	}
	return g.received[i].Load() - before
}

// TestPoliciesAreEnforced: what a PUT with wait=live has returned holds for the first packet after it.
func TestPoliciesAreEnforced(t *testing.T) {
	g := newGuard(t)
	client := g.Clients[0].String()
	if n := g.send(t, 0, 100); n != 100 {
		t.Fatalf("%d of 100 packets arrive without a policy", n)
	}
	g.put(t, "limit", `{"cidrs":["`+client+`"],"packets_per_second":10,"burst":50}`, 201)
	if n := g.send(t, 0, 1000); n < 50 || n > 60 {
		t.Errorf("%d packets got through a burst of 50 and 10 a second", n)
	}
	g.put(t, "limit", `{"cidrs":["`+client+`"],"packets_per_second":10,"burst":50,"action":"observe"}`, 200)
	if n := g.send(t, 0, 1000); n != 1000 {
		t.Errorf("%d of 1000 packets got through a policy that observes", n)
	}
	for range 10 {
		g.put(t, "deny", `{"deny":["`+client+`"],"filters":{"land":true}}`, 201)
		if n := g.send(t, 0, 10); n != 0 {
			t.Errorf("%d packets of a denied source got through", n)
		}
		call(t, g.System, "DELETE", g.policies+"deny?wait=live", nil, 200)
		if n := g.send(t, 0, 10); n != 10 {
			t.Errorf("%d of 10 packets got through after the deny list was gone", n)
		}
	}
	g.status(t)
	g.doctor(t)
	// nobody enforces it
	call(t, g.System, "PUT", g.policies+"elsewhere?wait=live",
		`{"spec":{"packets_per_second":1,"node_selector":{"wire":"none"}}}`, 202)
	if n := g.send(t, 0, 100); n != 100 {
		t.Errorf("%d of 100 packets got through a policy for other nodes", n)
	}
}

// TestRepeatedPutWaits: a write that changes nothing waits for what it asks for all the same.
func TestRepeatedPutWaits(t *testing.T) {
	g := newGuard(t)
	spec := `{"packets_per_second":1000000}`
	g.put(t, "p", spec, 201)
	g.put(t, "p", spec, 200)
	if err := g.Agent.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	body := `{"spec":{"packets_per_second":1000001,"node_selector":{"wire":"` + g.Namespace + `"}}}`
	call(t, g.System, "PUT", g.policies+"p", body, 200)
	for range 2 {
		l := call(t, g.System, "PUT", g.policies+"p?wait=live&timeout=300ms", body, 202)["live"].(map[string]any)
		if l["state"] != "timeout" || !strings.Contains(fmt.Sprint(l["reason"]), "node "+g.Namespace+
			" has not applied the policy yet") {
			t.Errorf("wait=live says %v while the agent is stopped", l)
		}
	}
	if err := g.Agent.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	g.put(t, "p", `{"packets_per_second":1000001}`, 200)
}

// status holds GET …/status against what was sent.
func (g *guard) status(t *testing.T) {
	t.Helper()
	shown := func() bool {
		s := call(t, g.System, "GET", g.policies+"limit/status", nil, 200)
		nodes := s["nodes"].([]any)
		if len(nodes) != 1 {
			return false
		}
		n := nodes[0].(map[string]any)
		limited, _ := n["limited"].(float64)
		sources, _ := n["sources"].([]any)
		return n["id"] == g.Namespace && n["live"] == true && n["mode"] == "native" && n["interface"] == g.Interface &&
			n["applied_revision"] == s["revision"] && limited >= 1000 && len(sources) == 1 &&
			sources[0].(map[string]any)["address"] == g.Clients[0].String()
	}
	if err := harness.Await(within(t), shown); err != nil {
		t.Errorf("the status does not come to show it: %v", call(t, g.System, "GET", g.policies+"limit/status", nil, 200))
	}
}

// doctor finds nothing wrong.
func (g *guard) doctor(t *testing.T) {
	t.Helper()
	var differences []string
	if status, err := g.Agent.Get(t.Context(), "/v1/check", &differences); err != nil || status != 200 ||
		len(differences) > 0 {
		t.Errorf("the kernel's maps differ from the policies: %d %v %v", status, err, differences)
	}
}

// TestGuideCommands: the integration guide's commands, from a client through the wire, XDP and Envoy.
func TestGuideCommands(t *testing.T) {
	g := newGuard(t)
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	call(t, g.System, "PUT", g.API+"/v1/routes/r", `{"spec":{"direct_response":{"status":200,"body":"ok"}}}`, 201)
	g.put(t, "everyone", `{"packets_per_second":1000000,"requests_per_second":1000}`, 201)
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", "xdp-check"), g.Interface,
		fmt.Sprintf("http://%s:%d/", g.Node, g.ProxyPort))
	cmd.Env = append(os.Environ(), "XDP_CHECK_NETNS="+g.Namespace)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("xdp-check: %v\n%s", err, out)
	}
	var limited int
	_, rest, found := strings.Cut(string(out), "Non-2xx responses:")
	if _, err := fmt.Sscan(rest, &limited); !found || err != nil || limited < 10000 {
		t.Errorf("%d of 100,000 requests were limited\n%s", limited, out)
	}
	if !strings.Contains(string(out), "Complete requests:      100000") || !strings.Contains(string(out), "packets") {
		t.Errorf("%s", out)
	}
	counted := func() bool {
		s := call(t, g.System, "GET", g.policies+"everyone/status", nil, 200)
		nodes := s["nodes"].([]any)
		n, _ := nodes[0].(map[string]any)["passed"].(float64)
		return n > 100000
	}
	if err := harness.Await(within(t), counted); err != nil {
		t.Errorf("the packets of 100,000 requests are not counted: %v", err)
	}
}

// TestEnforcementOutlivesTheAgent: a client sends all the while; the agent is killed, started again, started
// with other map sizes, stopped, and NATS is away. What gets through stays below what the policy gives.
func TestEnforcementOutlivesTheAgent(t *testing.T) {
	g := newGuard(t)
	const rate, burst = 200, 20
	g.put(t, "limit", fmt.Sprintf(`{"cidrs":["%s"],"packets_per_second":%d,"burst":%d}`, g.Clients[0], rate, burst), 201)
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan int, 1)
	conn := g.client(t, 0)
	began := time.Now()
	go func() {
		n, tick := 0, time.NewTicker(500*time.Microsecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			if _, err := conn.Write([]byte("x")); err == nil {
				n++
			}
		}
		sent <- n
	}()
	guarded := func() {
		t.Helper()
		var s struct{ Limits struct{ Mode string } }
		err := harness.Await(within(t), func() bool {
			_, err := g.Agent.Get(t.Context(), "/v1/state", &s)
			return err == nil && s.Limits.Mode == "native"
		})
		if err != nil {
			t.Fatalf("the interface is not guarded: %v\n%s", err, g.Log())
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGTERM} {
		_ = g.Agent.Stop(sig) // killed is how it ends
		if err := g.Agent.Start(); err != nil {
			t.Fatal(err)
		}
		guarded()
		t.Logf("%s: %d after %s", sig, g.received[0].Load(), time.Since(began))
	}
	// Another size of a map, as after an upgrade: what the sources have used is copied.
	_ = g.Agent.Stop(syscall.SIGKILL)
	g.Agent.Setenv("XDP_SOURCES=65536")
	if err := g.Agent.Start(); err != nil {
		t.Fatal(err)
	}
	guarded()
	elapsed := time.Since(began)
	cancel()
	n, got := <-sent, g.received[0].Load()
	most := float64(burst) + rate*elapsed.Seconds()*1.01 + 5 // a tick of the clock, and packets under way
	if float64(got) > most {
		t.Errorf("%d of %d packets got through in %s; the policy gives %.0f", got, n, elapsed, most)
	}
	if float64(n) < 3*most || float64(got) < most/2 {
		t.Fatalf("the test proves nothing: %d packets were sent, %d arrived, in %s", n, got, elapsed)
	}
	t.Logf("%d sent, %d arrived in %s; the policy gives %.0f", n, got, elapsed.Round(time.Millisecond), most)
}

// TestWhatCannotBeGuarded: the agent says why in a sentence, and goes on or ends as it was told.
func TestWhatCannotBeGuarded(t *testing.T) {
	s := start(t, "--no-demo")
	nats, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	w, err := harness.NewWire()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() }) // the namespace is this test's own
	call(t, s, "PUT", s.API+"/v1/rate-limit-policies/p", `{"spec":{"packets_per_second":1000000}}`, 201)
	for i, c := range []struct{ env, says string }{
		{"XDP_INTERFACE=nothere0", "no such interface"},
		{"XDP_MODE=hw", "cannot run in hardware"},
		{"XDP_PIN_DIR=" + filepath.Join(t.TempDir(), "pins"), "not a BPF file system"},
	} {
		env := []string{
			"NATS_URL=" + nats, "XDP_INTERFACE=" + w.Interface, "XDP_PIN_DIR=" + w.Pins, "MARCHPROXY_STATE_DIR=" + t.TempDir(),
			"AGENT_ID=" + fmt.Sprint(w.Namespace, "-", i), c.env,
		}
		a, err := harness.StartAgent(env)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Says(within(t), c.says); err != nil {
			t.Error(err)
		}
		answer := call(t, s, "PUT", s.API+"/v1/rate-limit-policies/p?wait=live",
			fmt.Sprintf(`{"spec":{"packets_per_second":%d}}`, 1000+i), 202)
		if l := answer["live"].(map[string]any); l["state"] != "rejected" ||
			!strings.Contains(fmt.Sprint(l["reason"]), c.says) {
			t.Errorf("%s: wait=live says %v", c.env, l)
		}
		if status, err := a.Get(t.Context(), "/readyz", nil); err != nil || status != 200 {
			t.Errorf("%s: an agent that need not guard is not ready: %d %v", c.env, status, err)
		}
		if err := a.Stop(syscall.SIGTERM); err != nil {
			t.Errorf("%s: the agent ended with %v", c.env, err)
		}
		required, err := harness.StartAgent(append(env, "XDP_REQUIRED=true"))
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-required.Exited():
		case <-within(t).Done():
			t.Errorf("%s: an agent that must guard goes on\n%s", c.env, required.Log())
			_ = required.Stop(syscall.SIGKILL) // it would go on
		}
	}
}
