package e2e

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/probe"
)

// TestUnreachableEndpoint: of three endpoints two refuse connections, as containers do that are started and do not listen
// yet, and no client notices. A service of one address has no other: its answer comes at once.
func TestUnreachableEndpoint(t *testing.T) {
	s := start(t, "--no-demo")
	var listen net.ListenConfig
	lis, err := listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = server.Serve(lis) }() // closed below
	t.Cleanup(func() { _ = server.Close() })
	silent, err := porttest.Take(2)
	if err != nil {
		t.Fatal(err)
	}
	at := func(port int) object { return object{"host": "127.0.0.1", "port": port} }
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{
		object{"kind": "Service", "name": "started", "spec": object{
			"endpoints": []any{at(silent[0]), at(lis.Addr().(*net.TCPAddr).Port), at(silent[1])},
		}},
		object{"kind": "Service", "name": "alone", "spec": object{"endpoints": []any{at(silent[0])}}},
		object{"kind": "Route", "name": "started", "spec": object{
			"hosts": []string{"started.test"}, "backends": []any{object{"service": "started"}},
		}},
		object{"kind": "Route", "name": "alone", "spec": object{
			"hosts": []string{"alone.test"}, "backends": []any{object{"service": "alone"}},
		}},
	}}, 200)
	c := probe.New(s.Proxy)
	defer c.Close()
	for i := range 300 {
		if a, _, err := c.Get("started.test", "/"); err != nil || a.Status != http.StatusOK {
			t.Fatalf("request %d: %d %s %v", i, a.Status, a.Body, err)
		}
	}
	// Envoy has the statistics of a service once it was asked for.
	for range 2 {
		if a, _, err := c.Get("alone.test", "/"); err != nil || a.Status != http.StatusServiceUnavailable {
			t.Errorf("a service whose only address refuses: %d %s %v", a.Status, a.Body, err)
		}
	}
	if n := retriesOf(t, edge{admin: s.Admin}, "alone")(); n != 0 {
		t.Errorf("an only address was tried %d times again", n)
	}
}
