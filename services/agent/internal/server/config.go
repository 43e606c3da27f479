// Package server puts the agent's parts together: the replay of rate limit policies into the kernel,
// Envoy's supervisor, the status report, and the HTTP door.
package server

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/clusterkey"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/tracing"
)

// Config is everything that the environment says.
type Config struct {
	// ID names this node in its status (AGENT_ID; the host's name).
	ID string
	// Labels are what policies select the node by (NODE_LABELS: zone=a,tier=edge).
	Labels map[string]string
	// NatsURL is where policies come from (NATS_URL); "" for an agent that only supervises Envoy.
	NatsURL string
	// Interface to guard (XDP_INTERFACE); none where empty.
	Interface string
	// Mode wanted: native, skb or hw (XDP_MODE; native).
	Mode string
	// Required stops the agent, and with it Envoy, where the interface cannot be guarded (XDP_REQUIRED).
	Required bool
	// PinDir on a BPF file system keeps the program and its maps while no agent runs (XDP_PIN_DIR); "" for
	// /sys/fs/bpf/marchproxy, or another place where that cannot be used.
	PinDir string
	// Sources is how many sources near their limit the kernel follows one by one (XDP_SOURCES).
	Sources int
	// StateDir holds the last good policies (MARCHPROXY_STATE_DIR).
	StateDir string
	// HTTPAddr serves /metrics, /healthz, /readyz and /v1/state (AGENT_HTTP_ADDR; loopback).
	HTTPAddr string
	// Identity is its certificate, whom it trusts, and its key at NATS.
	Identity identity.Settings
	// LogLevel is LOGLEVEL.
	LogLevel string

	// Envoy is supervised where XDS_SERVER is set.
	Envoy bootstrap.Config
	// EnvoyPath is its program (ENVOY_PATH), EnvoyConcurrency its workers (ENVOY_CONCURRENCY; one a CPU).
	EnvoyPath        string
	EnvoyConcurrency int
	// DoorAddr is where what Envoy's admin interface tells is passed on (ENVOY_ADMIN_ADDR; loopback). The interface itself
	// is a Unix socket (ENVOY_ADMIN_SOCKET; admin.sock in RunDir).
	DoorAddr string
	// Tracing is where spans are sent (OpenTelemetry's variables).
	Tracing tracing.Settings
	// LogFile is where Envoy writes the access log's file (ACCESS_LOG_FILE; access.log in RunDir where "").
	LogFile string
	// RunDir is where Envoy's bootstrap is written (MARCHPROXY_RUN_DIR).
	RunDir string
	// Drain is how long requests in flight may take at the end (DRAIN_TIMEOUT).
	Drain time.Duration
}

// supervises says whether there is an Envoy to keep running.
func (c Config) supervises() bool { return c.Envoy.XDSServer != "" }

var (
	notToken   = regexp.MustCompile(`[^A-Za-z0-9_-]+`)
	labelName  = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,63}$`)
	labelValue = regexp.MustCompile(`^[A-Za-z0-9._/-]{0,63}$`)
)

func readConfig(lookup func(string) (string, bool)) (Config, error) {
	e := process.NewEnv(lookup)
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	c := Config{
		ID:        strings.Trim(notToken.ReplaceAllString(e.String("AGENT_ID", host), "-"), "-"),
		Labels:    labels(e),
		NatsURL:   e.Secret("NATS_URL"),
		Interface: e.String("XDP_INTERFACE", ""),
		Mode:      e.String("XDP_MODE", "native"),
		Required:  e.Bool("XDP_REQUIRED", false),
		PinDir:    e.String("XDP_PIN_DIR", ""),
		Sources:   e.Int("XDP_SOURCES", 131072, 10000, 1<<24),
		StateDir:  e.String("MARCHPROXY_STATE_DIR", "/var/lib/marchproxy/agent"),
		HTTPAddr:  e.Addr("AGENT_HTTP_ADDR", "127.0.0.1:9902"),
		LogLevel:  e.String("LOGLEVEL", "info"),
		Identity:  identity.Read(e),
		Envoy: bootstrap.Config{
			NodeID:    e.String("NODE_ID", "marchproxy-node"),
			Gateway:   e.String("GATEWAY", "default"),
			Place:     place(e),
			XDSServer: e.Addr("XDS_SERVER", ""),
			APIKey:    e.Secret("CLUSTER_API_KEY"),
			MaxHeap:   memoryLimit("/sys/fs/cgroup/memory.max"),
			LogFile:   true,
		},
		LogFile:          logFile(e),
		EnvoyPath:        e.String("ENVOY_PATH", "envoy"),
		EnvoyConcurrency: e.Int("ENVOY_CONCURRENCY", 0, 0, 1024),
		RunDir:           runDir(e),
		Drain:            e.Duration("DRAIN_TIMEOUT", 8*time.Second),
	}
	c.Tracing = tracing.Read(e, c.Identity)
	c.Identity.Listener(e, "AGENT_HTTP_ADDR", c.HTTPAddr)
	if c.NatsURL != "" {
		c.Identity.NATS(e, "NATS_URL", c.NatsURL)
	}
	if c.supervises() {
		c.Identity.Server(e, "XDS_SERVER", c.Envoy.XDSServer)
	}
	if c.Envoy.APIKey != "" {
		if err := clusterkey.Check(c.Envoy.APIKey); err != nil {
			e.Fail("CLUSTER_API_KEY", "%s", err.Error())
		}
	}
	c.DoorAddr = e.Addr("ENVOY_ADMIN_ADDR", "127.0.0.1:9901")
	c.Envoy.AdminAddr = adminSocket(e, c.RunDir)
	if c.NatsURL != "" { // where those are who watch
		c.Envoy.TailSocket = filepath.Join(c.RunDir, "tail.sock")
	}
	if c.Envoy.NodeID == "auto" {
		c.Envoy.NodeID = "marchproxy-node-" + c.ID
	}
	if c.Mode != "native" && c.Mode != "skb" && c.Mode != "hw" {
		e.Fail("XDP_MODE", "is %q; it must be native, skb or hw", c.Mode)
	}
	if c.NatsURL == "" && !c.supervises() {
		e.Fail("NATS_URL", "is not set, and neither is XDS_SERVER: set the first to limit packets, the second to "+
			"run Envoy, or both")
	}
	if c.NatsURL == "" && c.Interface != "" {
		e.Fail("NATS_URL", "is not set; the policies for XDP_INTERFACE come from there, such as nats://host:4222")
	}
	if c.Required && c.Interface == "" {
		e.Fail("XDP_INTERFACE", "is not set, but XDP_REQUIRED is; name the interface to guard, such as eth0")
	}
	return c, e.Err()
}

// place is where the node is, as endpoints name their clouds, regions and zones.
func place(e *process.Env) locality.Place {
	part := func(name string) string {
		text := e.String(name, "")
		if len(text) > 128 || strings.Contains(text, "/") && name == "NODE_CLOUD" {
			e.Fail(name, "is %q; it must be at most 128 bytes, and a cloud without /: NODE_REGION has the region", text)
		}
		return text
	}
	return locality.Place{Cloud: part("NODE_CLOUD"), Region: part("NODE_REGION"), Zone: part("NODE_ZONE")}
}

// runDir is where what lives as long as the agent is. Envoy is started there: the path is absolute.
func runDir(e *process.Env) string {
	path, err := filepath.Abs(e.String("MARCHPROXY_RUN_DIR", "/run/marchproxy"))
	if err != nil {
		e.Fail("MARCHPROXY_RUN_DIR", "cannot be found: %v", err)
	}
	return path
}

// logFile is where the access log's file is to be; "" where nobody has said.
func logFile(e *process.Env) string {
	path := e.String("ACCESS_LOG_FILE", "")
	if path != "" && !filepath.IsAbs(path) {
		e.Fail("ACCESS_LOG_FILE", "is %q; it must be an absolute path", path)
	}
	return path
}

// adminSocket is where Envoy's admin interface is.
func adminSocket(e *process.Env, runDir string) string {
	path, err := filepath.Abs(e.String("ENVOY_ADMIN_SOCKET", filepath.Join(runDir, "admin.sock")))
	if err != nil {
		e.Fail("ENVOY_ADMIN_SOCKET", "cannot be found: %v", err)
	}
	return path
}

func labels(e *process.Env) map[string]string {
	out := map[string]string{}
	for part := range strings.SplitSeq(e.String("NODE_LABELS", ""), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok || !labelName.MatchString(name) || !labelValue.MatchString(value) {
			e.Fail("NODE_LABELS", "has %q; it must be a list of name=value, such as zone=a,tier=edge", part)
			continue
		}
		out[name] = value
	}
	return out
}

// memoryLimit is nine tenths of what the control group allows, 0 where it sets no limit: the rest is for
// what Envoy does not count, and for the agent.
func memoryLimit(path string) uint64 {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil { // "max"
		return 0
	}
	return n / 10 * 9
}
