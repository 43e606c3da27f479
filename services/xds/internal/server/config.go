// Package server puts the xDS server's parts together: the replay, the fleet, gRPC, the HTTP door, the
// last good state and the status report.
package server

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/endpoint"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/tracing"
	filters "github.com/marchproxy/marchproxy/wasm-filters"
)

// Config is everything that the environment says.
type Config struct {
	// NatsURL is where NATS is (NATS_URL). It may be away: the last good state is served then.
	NatsURL string
	// GRPCAddr serves Envoys (XDS_GRPC_ADDR, or XDS_GRPC_PORT on every interface; :18000).
	GRPCAddr string
	// HTTPAddr serves /v1/config and /metrics (XDS_HTTP_ADDR, or XDS_HTTP_PORT; :19000).
	HTTPAddr string
	// SecretKey opens sealed keys and seals the last good state (SECRET_KEY).
	SecretKey string
	// HasClusterKey says that CLUSTER_API_KEY is set, which is the api's, and the agents'.
	HasClusterKey bool
	// Identity is its certificate, whom it trusts, and its key at NATS; XDS_TLS_CERT and XDS_TLS_KEY are other names of
	// the first.
	Identity identity.Settings
	// StateDir holds the last good state (MARCHPROXY_STATE_DIR).
	StateDir string
	// WasmDir is where the Envoys have the filters' modules (MARCHPROXY_WASM_DIR; /var/lib/envoy/wasm).
	WasmDir string
	// ID names this server in its status (XDS_ID; the host's name).
	ID string
	// DNSServers are asked, as host:port, instead of resolv.conf's (XDS_DNS_SERVERS).
	DNSServers []string
	// Allowed are the addresses that services may have beside the ordinary ones (ALLOW_ENDPOINTS).
	Allowed endpoint.Allowed
	// Linger is how long a cluster outlives its last route (XDS_CLUSTER_LINGER).
	Linger time.Duration
	// Dev lets Envoys in without a key where no key is configured (MARCHPROXY_DEV).
	Dev bool
	// UserTokenFile holds the token of this server's own user, with which it may post to /v1/config from this machine
	// without naming one (XDS_USER_TOKEN_FILE); "" where everybody has to.
	UserTokenFile string
	// Tracing is what OpenTelemetry's variables say.
	Tracing tracing.Settings
	// LogLevel is LOGLEVEL.
	LogLevel string
}

var notToken = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

func readConfig(lookup func(string) (string, bool)) (Config, error) {
	e := process.NewEnv(lookup)
	host, err := os.Hostname()
	if err != nil {
		host = "xds"
	}
	c := Config{
		NatsURL:   e.URL("NATS_URL", "set it to nats://host:4222"),
		GRPCAddr:  e.Addr("XDS_GRPC_ADDR", fmt.Sprintf(":%d", e.Int("XDS_GRPC_PORT", 18000, 0, 65535))),
		HTTPAddr:  e.Addr("XDS_HTTP_ADDR", fmt.Sprintf(":%d", e.Int("XDS_HTTP_PORT", 19000, 0, 65535))),
		SecretKey: e.Required("SECRET_KEY", "set it to the api's, at least 16 characters"),
		Identity:  identity.Read(e),
		StateDir:  e.String("MARCHPROXY_STATE_DIR", "/var/lib/marchproxy/xds"),
		WasmDir:   e.String("MARCHPROXY_WASM_DIR", filters.Dir),
		ID:        strings.Trim(notToken.ReplaceAllString(e.String("XDS_ID", host), "-"), "-"),
		Linger:    e.Duration("XDS_CLUSTER_LINGER", 5*time.Second),
		Dev:       e.Bool("MARCHPROXY_DEV", false),
		LogLevel:  e.String("LOGLEVEL", "info"),

		UserTokenFile: e.String("XDS_USER_TOKEN_FILE", ""),
	}
	_, c.HasClusterKey = lookup("CLUSTER_API_KEY")
	for text := range strings.SplitSeq(e.String("XDS_DNS_SERVERS", ""), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		server, ok := dnsServer(text)
		if !ok {
			e.Fail("XDS_DNS_SERVERS", "has %q; give IP addresses, or address:port, with commas: 10.0.0.53,[2001:db8::53]:5353",
				text)
		}
		c.DNSServers = append(c.DNSServers, server)
	}
	c.Allowed = endpoint.Read(e)
	cert, key := e.String("XDS_TLS_CERT", ""), e.String("XDS_TLS_KEY", "")
	if (cert == "") != (key == "") {
		e.Fail("XDS_TLS_CERT", "and XDS_TLS_KEY must be set together")
	}
	if cert != "" && c.Identity.Cert == "" {
		c.Identity.Cert, c.Identity.Key = cert, key
	}
	c.Tracing = tracing.Read(e, c.Identity)
	c.Identity.Listener(e, "XDS_GRPC_ADDR", c.GRPCAddr)
	c.Identity.Listener(e, "XDS_HTTP_ADDR", c.HTTPAddr)
	c.Identity.NATS(e, "NATS_URL", c.NatsURL)
	return c, e.Err()
}

// dnsServer is an address with its port, 53 where it has none.
func dnsServer(text string) (string, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 53).String(), true
	}
	a, err := netip.ParseAddrPort(text)
	return a.String(), err == nil && a.Port() > 0
}
