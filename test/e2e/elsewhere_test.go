package e2e

import (
	"net/http"
	"testing"
)

// TestUnreachableEndpoint: of three endpoints two refuse connections, as containers do that are started and do not listen
// yet, and no client notices. A service of one address has no other: its answer comes at once.
func TestUnreachableEndpoint(t *testing.T) {
	s := start(t, "--no-demo")
	silent := nobody(t, 2)
	serve(t, s, "started", object{"endpoints": append(backends(t, says(200, "ok")), silent...)}, nil)
	serve(t, s, "alone", object{"endpoints": silent[:1]}, nil)
	if got := statuses(s, "started.test", 300); got[http.StatusOK] != 300 {
		t.Fatalf("with one of three endpoints that listens: %v", got)
	}
	// Envoy has the statistics of a service once it was asked for.
	if got := statuses(s, "alone.test", 2); got[http.StatusServiceUnavailable] != 2 {
		t.Errorf("a service whose only address refuses: %v", got)
	}
	if n := retriesOf(t, edge{admin: s.Admin}, "alone")(); n != 0 {
		t.Errorf("an only address was tried %d times again", n)
	}
}
