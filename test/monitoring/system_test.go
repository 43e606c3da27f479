package monitoring

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/harness"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// direct is a route of the host NAME.test that needs no service.
func direct(name string, more map[string]any) map[string]any {
	spec := map[string]any{
		"hosts":           []string{name + ".test"},
		"direct_response": map[string]any{"status": 200, "body": "ok"},
	}
	for k, v := range more {
		spec[k] = v
	}
	return map[string]any{"kind": "Route", "name": name, "spec": spec}
}

// certificate signs itself, and ends after some hours.
func certificate(t *testing.T, name string, hours int) (chain, private string) {
	t.Helper()
	key, private, err := authority.Key()
	if err != nil {
		t.Fatal(err)
	}
	chain, err = authority.Sign(authority.Server(time.Duration(hours)*time.Hour, name), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return chain, private
}

// node is an agent that guards one end of a wire and runs an Envoy of the gateway edge.
type node struct {
	*harness.Agent
	// admin is the URL of what is told of its Envoy.
	admin string
}

// startNode starts one. nats is where it finds NATS, the system's own where it is "".
func startNode(t *testing.T, s *harness.System, nats string, env ...string) node {
	t.Helper()
	wire, err := harness.NewWire()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := wire.Close(); err != nil {
			t.Error(err)
		}
	})
	if nats == "" {
		if nats, err = s.NATS(); err != nil {
			t.Fatal(err)
		}
	}
	ports, err := porttest.Take(2)
	if err != nil {
		t.Fatal(err)
	}
	envoy, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	status, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/gateways/edge", map[string]any{"spec": map[string]any{
		"listeners": []any{map[string]any{"name": "http", "port": ports[0], "address": "127.0.0.1"}},
		"api_keys":  []any{map[string]any{"name": "bootstrap", "key": key}},
	}})
	if err != nil || status > 201 {
		t.Fatalf("gateway edge: %d %s %v", status, raw, err)
	}
	a, err := harness.StartAgent(append([]string{
		"NATS_URL=" + nats, "XDP_INTERFACE=" + wire.Interface, "XDP_PIN_DIR=" + wire.Pins, "MARCHPROXY_STATE_DIR=" +
			t.TempDir(),
		"AGENT_ID=" + wire.Namespace, "NODE_ID=" + wire.Namespace, "XDS_SERVER=" + s.GRPC, "CLUSTER_API_KEY=" + key,
		"GATEWAY=edge",
		"ENVOY_PATH=" + envoy, fmt.Sprintf("ENVOY_ADMIN_ADDR=127.0.0.1:%d", ports[1]), "ENVOY_CONCURRENCY=1",
		"MARCHPROXY_RUN_DIR=" + t.TempDir(), "LOGLEVEL=error",
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
	return node{a, fmt.Sprintf("http://127.0.0.1:%d", ports[1])}
}
