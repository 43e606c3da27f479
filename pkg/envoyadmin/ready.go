package envoyadmin

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
)

// Envoy is one whose readiness is asked for.
type Envoy struct {
	Admin Admin
	// Server is the xDS server that it takes its configuration from, host:port, and Gateway its gateway;
	// "default" where empty.
	Server, Gateway string
	// Log is the end of what Envoy has logged since its start. It has the reason for which its stream to the xDS server
	// was closed last, which Envoy's statistics do not tell.
	Log func() []byte
}

// Cause is a kind of reason for which an Envoy is not ready: what can be done depends on it.
type Cause int

// Causes.
const (
	// Waits is a reason that passes by itself.
	Waits Cause = iota
	// Unreachable says that there is no way to the xDS server.
	Unreachable
	// KeyRefused says that the xDS server does not take the Envoy's key.
	KeyRefused
	// NoListeners says that its gateway has none.
	NoListeners
)

// Look says whether the Envoy serves, and if not, in one sentence why.
func (e Envoy) Look(ctx context.Context) (ready bool, cause Cause, reason string) {
	status, _, err := e.Admin.Do(ctx, http.MethodGet, "/ready")
	if err != nil {
		return false, Waits, "its admin interface on " + e.Admin.addr + " does not answer yet"
	}
	families, err := e.Admin.Metrics(ctx, `^(control_plane\.connected_state|listener_manager\.`+
		`(total_listeners_active|total_listeners_warming|lds\.update_success|lds\.update_rejected))$`)
	if err != nil {
		return false, Waits, "its statistics cannot be read: " + err.Error()
	}
	stat := func(name string) (n int64) {
		for _, m := range families["envoy_"+name].GetMetric() {
			n += value(m)
		}
		return n
	}
	listeners, gateway := stat("listener_manager_total_listeners_active"), cmp.Or(e.Gateway, "default")
	if bootstrap.ProbeSocket(e.Admin.addr) != "" {
		listeners-- // the bootstrap's own, which nobody's traffic comes through
	}
	switch {
	case status == http.StatusOK && listeners > 0:
		return true, Waits, "" // also where the xDS server is away: Envoy serves what it has
	case stat("control_plane_connected_state") != 1:
		cause, reason = e.unconnected(ctx)
		return false, cause, reason
	case stat("listener_manager_lds_update_rejected") > 0 && listeners == 0:
		return false, Waits, "it refused its listeners; the gateway's status in the API says why"
	case stat("listener_manager_total_listeners_warming") > 0:
		return false, Waits, "its listeners wait for routes and secrets from the xDS server " + e.Server
	case stat("listener_manager_lds_update_success") > 0 && listeners == 0:
		return false, NoListeners, fmt.Sprintf("gateway %q has no listeners", gateway)
	default:
		return false, Waits, fmt.Sprintf("it is connected to the xDS server %s and waits for the listeners of gateway %q",
			e.Server, gateway)
	}
}

// gRPC's codes.
const (
	permissionDenied = "7"
	unauthenticated  = "16"
)

// unconnected says why there is no stream to the xDS server: it refused, or it cannot be reached.
func (e Envoy) unconnected(ctx context.Context) (Cause, string) {
	limit, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(limit, "tcp", e.Server)
	if err != nil {
		return Unreachable, fmt.Sprintf("it cannot reach the xDS server: %v", err)
	}
	_ = conn.Close() // it was only to see
	switch code, text := streamEnd(e.Log()); code {
	case "":
		return Waits, "it is connecting to the xDS server " + e.Server
	case permissionDenied, unauthenticated:
		return KeyRefused, fmt.Sprintf("the xDS server %s refuses its key: %s", e.Server, text)
	default:
		return Waits, fmt.Sprintf("the xDS server %s ended its stream: %s", e.Server, text)
	}
}

// closed is Envoy's line about the end of a stream, with its code and text.
var closed = regexp.MustCompile(`gRPC config stream (?:to \S+ )?closed(?: since \d+s ago)?: (\d+), (.*)`)

// streamEnd is gRPC's code and text of the last end of Envoy's stream that a log tells of; both are "" where it tells
// of none. The line is a warning of the logger "config".
func streamEnd(log []byte) (code, text string) {
	log = log[:bytes.LastIndexByte(log, '\n')+1] // the last line may not be whole yet
	all := closed.FindAllSubmatch(log, -1)
	if len(all) == 0 {
		return "", ""
	}
	last := all[len(all)-1]
	return string(last[1]), string(last[2])
}
