// Package bootstrap renders Envoy's bootstrap: who it is, where it gets its configuration, and the limits
// and statistics of a proxy at the edge. Everything else comes by xDS.
package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/locality"
)

// Config is what differs from Envoy to Envoy.
type Config struct {
	// NodeID is node.id; marchproxy-node where empty.
	NodeID string
	// Gateway is node.cluster; default where empty.
	Gateway string
	// Place is where it runs, node.locality; the zero one where that is not said.
	Place locality.Place
	// XDSServer is host:port of the xDS server's gRPC port.
	XDSServer string
	// APIKey authenticates the Envoy (CLUSTER_API_KEY); none is sent where empty.
	APIKey string
	// TLS is how the Envoy speaks to the xDS server; in plain text where nil.
	TLS *TLS
	// AdminAddr is the path of the Unix socket of Envoy's admin interface, which the user alone may open that Envoy runs
	// as; or host:port, which nobody else may reach then: who does can stop Envoy, and read the key.
	AdminAddr string
	// MaxHeap is how much memory Envoy may use, in bytes: near it, Envoy gives memory back, then refuses
	// requests, rather than being killed. No limit where 0.
	MaxHeap uint64
	// DrainTime is what Envoy is started with, by [Config.Flags]; [DefaultDrainTime] where 0.
	DrainTime time.Duration
	// LogFile says that Envoy is started in a directory where it may write [AccessLogFile].
	LogFile bool
	// TailSocket is the path of a Unix socket that entries of the access log go to while somebody watches it; "" where
	// nobody takes them.
	TailSocket string
}

// Flags are what belongs to the bootstrap on Envoy's command line.
func (c Config) Flags() []string {
	return []string{"--drain-time-s", strconv.Itoa(c.drainSeconds())}
}

func (c Config) drainSeconds() int {
	if c.DrainTime < time.Second {
		return int(DefaultDrainTime / time.Second)
	}
	return int(c.DrainTime / time.Second)
}

// Environment is Envoy's whole environment: what its own may need to find its files and the time zone, and nothing of
// who starts it, whose environment holds secrets. A format that gave out variables would find none.
func Environment() []string {
	var out []string
	for _, name := range []string{"PATH", "TMPDIR", "TZ"} {
		if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return out
}

// RuntimeLayer is the layer of Envoy's runtime that comes from the xDS server, and its resource's name.
const RuntimeLayer = "marchproxy"

// What an Envoy says of itself, in node.metadata under MetadataSpace.
const (
	MetadataSpace = "marchproxy"
	// MetadataRuntime is true where the bootstrap has the layer [RuntimeLayer].
	MetadataRuntime = "runtime"
	// MetadataPlaces is true where each place for a filter may be empty. An Envoy that was started before there was
	// such a thing may have listeners that refuse it, so the bootstrap says so and not the version of Envoy.
	MetadataPlaces = "empty_places"
	// MetadataDrain is [Config.DrainTime] in seconds.
	MetadataDrain = "drain_time_s"
	// MetadataLogFile is [Config.LogFile].
	MetadataLogFile = "access_log_file"
)

// AccessLogFile is the access log's file in the directory that Envoy is started in. Envoy opens it with the listeners,
// whether it is written or not, so that all Envoys of a gateway have one name for it; where it leads is the node's own
// business.
const AccessLogFile = "access.log"

// DefaultDrainTime is Envoy's own.
const DefaultDrainTime = 10 * time.Minute

// XDSCluster is the cluster that an Envoy asks for its configuration. A service cannot have such a name; one that had
// would never be served, since Envoy keeps what its bootstrap has.
const XDSCluster = "marchproxy.xds"

// What the access log's live tail needs. The keys are in the runtime's admin layer, which is gone with the Envoy: the
// share of the requests that are told of, in millionths, and the least status of those.
const (
	RuntimeTail       = "marchproxy.access_log_tail"
	RuntimeTailStatus = "marchproxy.access_log_tail_min_status"
	// TailCluster is where the entries go.
	TailCluster = "marchproxy.tail"
)

type object = map[string]any

// Render returns the bootstrap as JSON. It holds the API key: write it where only Envoy can read it.
func Render(c Config) ([]byte, error) {
	if c.NodeID == "" {
		c.NodeID = "marchproxy-node"
	}
	if c.Gateway == "" {
		c.Gateway = "default"
	}
	xds, err := address(c.XDSServer)
	if err != nil {
		return nil, fmt.Errorf("XDS_SERVER %w", err)
	}
	admin, err := adminAddress(c.AdminAddr)
	if err != nil {
		return nil, err
	}
	// An xDS server with much to read is away for some seconds when it is restarted. Of itself an Envoy would by then let
	// up to eight seconds pass before it tries again, and half a minute after a longer absence.
	grpc := object{"envoy_grpc": object{"cluster_name": XDSCluster, "retry_policy": object{"retry_back_off": object{
		"base_interval": "0.5s", "max_interval": "2s",
	}}}}
	if c.APIKey != "" {
		grpc["initial_metadata"] = []object{{"key": "x-api-key", "value": c.APIKey}}
	}
	ads := object{"ads": object{}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
	server := object{
		"name": XDSCluster, "type": "STRICT_DNS", "connect_timeout": "1s",
		"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
			"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
			"explicit_http_config": object{"http2_protocol_options": object{
				"connection_keepalive": object{"interval": "10s", "timeout": "5s"},
			}},
		}},
		"load_assignment": object{
			"cluster_name": XDSCluster,
			"endpoints":    []object{{"lb_endpoints": []object{{"endpoint": object{"address": xds}}}}},
		},
	}
	if c.TLS != nil {
		server["transport_socket"] = c.TLS.socket(c.XDSServer)
	}
	clusters := []object{server}
	if c.TailSocket != "" {
		tail, err := tailCluster(c.TailSocket)
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, tail)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	node := object{"id": c.NodeID, "cluster": c.Gateway, "metadata": object{MetadataSpace: object{
		MetadataRuntime: true, MetadataPlaces: true, MetadataDrain: c.drainSeconds(), MetadataLogFile: c.LogFile,
	}}}
	if c.Place != (locality.Place{}) {
		node["locality"] = object{"region": c.Place.EnvoyRegion(), "zone": c.Place.Zone}
	}
	static := object{"clusters": clusters}
	if path := ProbeSocket(c.AdminAddr); path != "" {
		static["listeners"] = []object{probes(path)}
	}
	err = enc.Encode(object{
		"node":  node,
		"admin": object{"address": admin},
		"dynamic_resources": object{
			"ads_config": object{
				"api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
				"grpc_services": []object{grpc},
			},
			"lds_config": ads, "cds_config": ads,
		},
		"static_resources": static,
		// A scrape of the statistics runs on the thread that applies xDS: nothing is counted that nobody reads,
		// and what is not used is not made.
		"stats_config": object{"stats_tags": Tags(), "histogram_bucket_settings": Buckets(), "stats_matcher": object{
			"exclusion_list": object{"patterns": []object{
				{"prefix": "vhost."},
				{"contains": ".rds."},
				{"contains": ".circuit_breakers."},
				{"contains": ".zone."},
				{"suffix": ".version_text"},
				// By secret and by name that a client sends.
				{"prefix": "sds."},
				{"contains": ".ssl.certificate."},
				{"prefix": "cluster.certificates/"},
			}},
		}},
		"bootstrap_extensions":  []object{namespace()},
		"deferred_stat_options": object{"enable_deferred_creation_stats": true},
		"overload_manager":      overload(c.MaxHeap),
		"layered_runtime": object{"layers": []object{
			{"name": "static", "static_layer": object{"re2.max_program_size.error_level": 2000}},
			// An xDS server that is away is not waited for: without listeners nobody reads the runtime.
			{"name": RuntimeLayer, "rtds_layer": object{"name": RuntimeLayer, "rtds_config": object{
				"ads": object{}, "resource_api_version": "V3", "initial_fetch_timeout": "1s",
			}}},
			{"name": "admin", "admin_layer": object{}}, // POST /runtime_modify, on the admin interface
		}},
	})
	return out.Bytes(), err
}

// overload refuses connections beyond 100,000, the number that the rest is dimensioned for, and requests
// when memory is running out.
func overload(maxHeap uint64) object {
	const monitors = "type.googleapis.com/envoy.extensions.resource_monitors."
	out := object{"resource_monitors": []object{{
		"name": "envoy.resource_monitors.global_downstream_max_connections",
		"typed_config": object{
			"@type":                             monitors + "downstream_connections.v3.DownstreamConnectionsConfig",
			"max_active_downstream_connections": 100000,
		},
	}}}
	if maxHeap == 0 {
		return out
	}
	const heap = "envoy.resource_monitors.fixed_heap"
	out["refresh_interval"] = "0.25s"
	out["resource_monitors"] = append(out["resource_monitors"].([]object), object{
		"name": heap, "typed_config": object{
			"@type":               monitors + "fixed_heap.v3.FixedHeapConfig",
			"max_heap_size_bytes": maxHeap,
		},
	})
	var actions []object
	for _, a := range []struct {
		name string
		at   float64
	}{{"shrink_heap", 0.95}, {"stop_accepting_requests", 0.98}} {
		actions = append(actions, object{
			"name": "envoy.overload_actions." + a.name, "triggers": []object{{"name": heap, "threshold": object{"value": a.at}}},
		})
	}
	out["actions"] = actions
	return out
}

// longestSocket is what the kernel takes as a socket's path.
const longestSocket = 107

func adminAddress(addr string) (object, error) {
	if !strings.HasPrefix(addr, "/") {
		a, err := address(addr)
		if err != nil {
			return nil, fmt.Errorf("admin address %w", err)
		}
		return a, nil
	}
	if err := socketPath("Envoy's admin socket", addr); err != nil {
		return nil, err
	}
	return object{"pipe": object{"path": addr, "mode": 0o600}}, nil
}

func socketPath(what, path string) error {
	if len(path) > longestSocket {
		return fmt.Errorf("the path of %s, %s, is longer than the kernel's %d bytes; choose a directory with a shorter path",
			what, path, longestSocket)
	}
	return nil
}

// tailRequests is how many batches may be on their way to who takes the live tail, each of 16 KiB at most: what is beyond
// is lost, and no request waits.
const tailRequests = 16

// tailCluster is who takes the live tail. Nothing connects to it while nobody watches.
func tailCluster(socket string) (object, error) {
	if err := socketPath("the socket of the access log's live tail", socket); err != nil {
		return nil, err
	}
	return object{
		"name": TailCluster, "type": "STATIC", "connect_timeout": "1s",
		"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
			"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
			"explicit_http_config": object{"http2_protocol_options": object{}},
		}},
		"circuit_breakers": object{"thresholds": []object{{
			"max_requests": tailRequests, "max_pending_requests": tailRequests,
		}}},
		"load_assignment": object{
			"cluster_name": TailCluster,
			"endpoints": []object{{"lb_endpoints": []object{{"endpoint": object{
				"address": object{"pipe": object{"path": socket}},
			}}}}},
		},
	}, nil
}

func address(hostPort string) (object, error) {
	host, port, err := net.SplitHostPort(hostPort)
	n, convErr := strconv.Atoi(port)
	if err != nil || convErr != nil || n < 1 || n > 65535 || host == "" {
		return nil, fmt.Errorf("is %q; it must be host:port", hostPort)
	}
	return object{"socket_address": object{"address": host, "port_value": n}}, nil
}
