package monitoring

import (
	"context"
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

// startNode starts an agent with an Envoy of the gateway edge.
func startNode(t *testing.T, s *harness.System, env ...string) *harness.Node {
	t.Helper()
	ports, err := porttest.Take(1)
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
	return harness.StartNode(t, s, env...)
}
