package harness

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// Node is an agent that guards one end of a wire and runs an Envoy of the gateway edge.
type Node struct {
	*Agent
	Wire *Wire
	// Admin is the URL of what is told of its Envoy.
	Admin string
}

// StartNode starts one for a test, whose name is its wire's where the environment does not say another. The gateway edge
// and its listeners are the test's to make.
func StartNode(t testing.TB, s *System, env ...string) *Node {
	t.Helper()
	wire, err := NewWire()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := wire.Close(); err != nil {
			t.Error(err)
		}
	})
	nats, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	envoy, err := EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	admin := fmt.Sprintf("127.0.0.1:%d", ports[0])
	a, err := StartAgent(append([]string{
		"NATS_URL=" + nats, "XDP_INTERFACE=" + wire.Interface, "XDP_PIN_DIR=" + wire.Pins,
		"MARCHPROXY_STATE_DIR=" + t.TempDir(), "MARCHPROXY_RUN_DIR=" + t.TempDir(), "AGENT_ID=" + wire.Namespace,
		"NODE_ID=" + wire.Namespace, "XDS_SERVER=" + s.GRPC, "CLUSTER_API_KEY=" + key, "GATEWAY=edge",
		"ENVOY_PATH=" + envoy, "ENVOY_ADMIN_ADDR=" + admin, "ENVOY_CONCURRENCY=1", "LOGLEVEL=error",
	}, env...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-a.Exited():
		default:
			_ = a.Stop(syscall.SIGKILL) // whatever state it is in; its Envoy ends with it
		}
	})
	return &Node{a, wire, "http://" + admin}
}
