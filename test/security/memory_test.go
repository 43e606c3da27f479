package security

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// TestMemoryRunsOut: an Envoy that has used what it may of its memory refuses requests, and lives.
func TestMemoryRunsOut(t *testing.T) {
	for what, c := range map[string]struct {
		heap uint64
		want int
	}{
		"no limit": {0, 200}, "much": {4 << 30, 200}, "less than it needs": {1 << 20, 503},
	} {
		ports, err := porttest.Take(2)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		raw, err := bootstrap.Render(bootstrap.Config{
			XDSServer: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])), AdminAddr: filepath.Join(dir, "admin.sock"),
			MaxHeap: c.heap,
		})
		if err != nil {
			t.Fatal(err)
		}
		var boot jsonObject
		if err := json.Unmarshal(raw, &boot); err != nil {
			t.Fatal(err)
		}
		boot["static_resources"].(jsonObject)["listeners"] = []any{answering(ports[1])}
		delete(boot, "dynamic_resources") // there is no xDS server, and nothing is to wait for one
		delete(boot, "layered_runtime")
		stop := beginEnvoy(t, boot)
		p := probe.New(net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1])))
		harness.Eventually(t, func() string {
			a, _, err := p.Get("a.test", "/")
			if err != nil || a.Status != c.want {
				return fmt.Sprintf("%s: %d %v, want %d", what, a.Status, err, c.want)
			}
			return ""
		})
		for range 100 {
			if a, _, err := p.Get("a.test", "/"); err != nil || a.Status != c.want {
				t.Fatalf("%s: %d %v, want %d", what, a.Status, err, c.want)
			}
		}
		p.Close()
		stop()
	}
}

// answering is a listener that answers every request with 200.
func answering(port int) jsonObject {
	return jsonObject{
		"name": "answering", "address": jsonObject{"socket_address": jsonObject{"address": "127.0.0.1", "port_value": port}},
		"filter_chains": []any{jsonObject{"filters": []any{jsonObject{
			"name": "hcm", "typed_config": jsonObject{
				"@type":       "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
				"stat_prefix": "answering",
				"route_config": jsonObject{"virtual_hosts": []any{jsonObject{
					"name": "all", "domains": []any{"*"}, "routes": []any{
						jsonObject{"match": jsonObject{"prefix": "/"}, "direct_response": jsonObject{"status": 200}},
					},
				}}},
				"http_filters": []any{jsonObject{"name": "router", "typed_config": jsonObject{
					"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
				}}},
			},
		}}}},
	}
}
