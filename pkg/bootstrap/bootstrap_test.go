package bootstrap_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// render decodes what Envoy would read. That Envoy takes it is shown by test/golden.
func render(t *testing.T, c bootstrap.Config) map[string]any {
	t.Helper()
	raw, err := bootstrap.Render(c)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// at follows names and numbers of a bootstrap; nil where there is no such thing.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func least() bootstrap.Config {
	return bootstrap.Config{XDSServer: "127.0.0.1:18000", AdminAddr: "/run/marchproxy/envoy.sock"}
}

// TestNode: an Envoy says who it is, which gateway it serves and what it was started with; the xDS server decides by
// that.
func TestNode(t *testing.T) {
	for name, c := range map[string]struct {
		id, gateway string
		drain       time.Duration
		want        [3]any
		flags       []string
	}{
		"nothing said": {"", "", 0, [3]any{"marchproxy-node", "default", 600.0}, []string{"--drain-time-s", "600"}},
		"all said": {
			"edge-1", "public", 90 * time.Second,
			[3]any{"edge-1", "public", 90.0},
			[]string{"--drain-time-s", "90"},
		},
		"below a second": {
			"edge-1", "public", time.Millisecond,
			[3]any{"edge-1", "public", 600.0},
			[]string{"--drain-time-s", "600"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := least()
			config.NodeID, config.Gateway, config.DrainTime = c.id, c.gateway, c.drain
			b := render(t, config)
			own := at(b, "node", "metadata", bootstrap.MetadataSpace)
			got := [3]any{at(b, "node", "id"), at(b, "node", "cluster"), at(own, bootstrap.MetadataDrain)}
			if got != c.want || at(own, bootstrap.MetadataRuntime) != true || at(own, bootstrap.MetadataPlaces) != true {
				t.Errorf("%v and %v, want %v", got, own, c.want)
			}
			if flags := config.Flags(); !slices.Equal(flags, c.flags) {
				t.Errorf("flags %q, want %q: Envoy would drain otherwise than it says", flags, c.flags)
			}
		})
	}
}

// TestKey: the key for the xDS server is said to it on each stream, and stands nowhere else.
func TestKey(t *testing.T) {
	const key = `a "key" with \odd characters`
	config := least()
	config.APIKey = key
	b := render(t, config)
	service := at(b, "dynamic_resources", "ads_config", "grpc_services", 0)
	said := at(service, "initial_metadata", 0)
	if at(said, "key") != "x-api-key" || at(said, "value") != key {
		t.Errorf("the stream's metadata is %v", said)
	}
	delete(service.(map[string]any), "initial_metadata")
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "odd characters") {
		t.Errorf("the key stands elsewhere too: %s", raw)
	}
	if without := render(t, least()); at(without, "dynamic_resources", "ads_config", "grpc_services", 0,
		"initial_metadata") != nil {
		t.Error("without a key one is said")
	}
}

// TestAdmin: the admin interface is a socket that its user alone may open, or an address.
func TestAdmin(t *testing.T) {
	if b := render(t, least()); at(b, "admin", "address", "pipe", "path") != "/run/marchproxy/envoy.sock" ||
		at(b, "admin", "address", "pipe", "mode") != float64(0o600) {
		t.Errorf("%v", b["admin"])
	}
	config := least()
	config.AdminAddr = "[::1]:9901"
	if b := render(t, config); at(b, "admin", "address", "socket_address", "address") != "::1" ||
		at(b, "admin", "address", "socket_address", "port_value") != 9901.0 {
		t.Errorf("%v", b["admin"])
	}
}

// TestProbes: there is a socket for probes beside that of the admin interface, for its user alone and for GET alone; an
// admin interface at an address, or a path that is too long, has none.
func TestProbes(t *testing.T) {
	l := at(render(t, least()), "static_resources", "listeners", 0)
	pipe := at(l, "address", "pipe")
	if at(pipe, "path") != "/run/marchproxy/envoy.probe" || at(pipe, "mode") != float64(0o600) {
		t.Errorf("%v", pipe)
	}
	route := at(l, "filter_chains", 0, "filters", 0, "typed_config", "route_config", "virtual_hosts", 0, "routes", 0)
	if at(route, "match", "headers", 0, "string_match", "exact") != "GET" {
		t.Errorf("any method is taken: %v", route)
	}
	for _, admin := range []string{"127.0.0.1:9901", "/" + strings.Repeat("a", 106)} {
		config := least()
		config.AdminAddr = admin
		if l := at(render(t, config), "static_resources", "listeners"); l != nil || bootstrap.ProbeSocket(admin) != "" {
			t.Errorf("%s: %v", admin, l)
		}
	}
}

// TestRefused: what Envoy would not start with is refused before, by the name of the setting.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ xds, admin, says string }{
		"no xDS server":     {"", "/s", "XDS_SERVER"},
		"no port":           {"xds.example.com", "/s", "XDS_SERVER"},
		"no host":           {":18000", "/s", "XDS_SERVER"},
		"port 0":            {"xds.example.com:0", "/s", "XDS_SERVER"},
		"a port too high":   {"xds.example.com:65536", "/s", "XDS_SERVER"},
		"a port by name":    {"xds.example.com:http", "/s", "XDS_SERVER"},
		"no admin":          {"127.0.0.1:18000", "", "admin address"},
		"the longest admin": {"127.0.0.1:18000", "/" + strings.Repeat("a", 106), ""},
		"a longer admin":    {"127.0.0.1:18000", "/" + strings.Repeat("a", 107), "shorter path"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bootstrap.Render(bootstrap.Config{XDSServer: c.xds, AdminAddr: c.admin})
			if (err == nil) != (c.says == "") || (err != nil && !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// TestMemory: an Envoy with a limit gives memory back before it refuses requests, and refuses them before it is killed;
// any refuses connections beyond what it is dimensioned for.
func TestMemory(t *testing.T) {
	b := render(t, least())
	if n := at(b, "overload_manager", "resource_monitors", 0, "typed_config",
		"max_active_downstream_connections"); n != 100000.0 {
		t.Errorf("%v connections", n)
	}
	if at(b, "overload_manager", "resource_monitors", 1) != nil || at(b, "overload_manager", "actions") != nil {
		t.Error("without a limit something is done about memory")
	}
	config := least()
	config.MaxHeap = 1 << 30
	manager := render(t, config)["overload_manager"]
	if n := at(manager, "resource_monitors", 1, "typed_config", "max_heap_size_bytes"); n != float64(1<<30) {
		t.Errorf("limit %v", n)
	}
	last := 0.0
	for i, action := range []string{"shrink_heap", "stop_accepting_requests"} {
		threshold, _ := at(manager, "actions", i, "triggers", 0, "threshold", "value").(float64)
		if at(manager, "actions", i, "name") != "envoy.overload_actions."+action || threshold <= last || threshold >= 1 {
			t.Errorf("action %d is %v", i, at(manager, "actions", i))
		}
		last = threshold
	}
}

// TestEnvironment: Envoy gets nothing of what the one that starts it was given, whose environment has secrets.
func TestEnvironment(t *testing.T) {
	t.Setenv("CLUSTER_API_KEY", "a secret")
	t.Setenv("TZ", "Europe/Berlin")
	t.Setenv("TMPDIR", "/var/tmp")
	t.Setenv("PATH", "/bin")
	got := bootstrap.Environment()
	if want := []string{"PATH=/bin", "TMPDIR=/var/tmp", "TZ=Europe/Berlin"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if err := os.Unsetenv("TZ"); err != nil {
		t.Fatal(err)
	}
	if got, want := bootstrap.Environment(), []string{"PATH=/bin", "TMPDIR=/var/tmp"}; !slices.Equal(got, want) {
		t.Errorf("without a zone %q, want %q", got, want)
	}
}

// TestTags: of a figure's name as our filters write it, each label becomes one of the figure, whatever its value is,
// and nothing of other figures does.
func TestTags(t *testing.T) {
	values := map[string]string{
		"service": "web", "route": "a-b", "method": "read", "status": "2xx", "decision": "",
		"reason": "no=token",
	}
	figure := "wasmcustom.marchproxy_requests_total"
	for _, label := range []string{"service", "route", "method", "status", "decision", "reason"} {
		figure += ";" + label + "=" + values[label] + ";"
	}
	tags := bootstrap.Tags()
	if len(tags) != len(values) {
		t.Errorf("%d labels, want %d", len(tags), len(values))
	}
	for _, tag := range tags {
		name := tag["tag_name"].(string)
		m := regexp.MustCompile(tag["regex"].(string)).FindStringSubmatch(figure)
		if m == nil || m[2] != values[name] || m[1] != ";"+name+"="+values[name]+";" {
			t.Errorf("%s: %q, want %q", name, m, values[name])
		}
		if regexp.MustCompile(tag["regex"].(string)).MatchString("cluster.x;" + name + "=y;") {
			t.Errorf("%s is taken from another's figure", name)
		}
	}
}

// TestNamespaceModule: the module that has Envoy know our prefix is one that a WASM engine takes, with the functions
// that Envoy asks a module for.
func TestNamespaceModule(t *testing.T) {
	raw, err := bootstrap.Render(least())
	if err != nil {
		t.Fatal(err)
	}
	var b struct {
		Extensions []struct {
			Config struct {
				Config struct {
					VM struct {
						Code struct {
							Local struct {
								Bytes []byte `json:"inline_bytes"`
							} `json:"local"`
						} `json:"code"`
					} `json:"vm_config"`
				} `json:"config"`
			} `json:"typed_config"`
		} `json:"bootstrap_extensions"`
	}
	if err := json.Unmarshal(raw, &b); err != nil || len(b.Extensions) != 1 {
		t.Fatal(err, len(b.Extensions))
	}
	engine := wazero.NewRuntime(t.Context())
	t.Cleanup(func() { _ = engine.Close(t.Context()) }) // nothing runs in it
	m, err := engine.Instantiate(t.Context(), b.Extensions[0].Config.Config.VM.Code.Local.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if m.ExportedFunction("proxy_abi_version_0_2_1") == nil || m.ExportedFunction("proxy_on_memory_allocate") == nil ||
		m.Memory() == nil {
		t.Error("it lacks what Envoy asks a module for")
	}
}

// TestTLS: Envoy holds the server to the name that XDS_SERVER says, an address to the address, and reads certificates
// from files that are replaced as a whole and that nobody else can read.
func TestTLS(t *testing.T) {
	for server, want := range map[string]struct{ kind, name, sni any }{
		"xds.example.com:18000": {"DNS", "xds.example.com", "xds.example.com"},
		"192.0.2.1:18000":       {"IP_ADDRESS", "192.0.2.1", nil},
		"[2001:db8::0:1]:18000": {"IP_ADDRESS", "2001:db8::1", nil},
	} {
		t.Run(server, func(t *testing.T) {
			config := least()
			config.XDSServer, config.TLS = server, &bootstrap.TLS{Identity: authorities(t), Dir: t.TempDir()}
			cluster := at(render(t, config), "static_resources", "clusters", 0)
			tls := at(cluster, "transport_socket", "typed_config")
			match := at(tls, "common_tls_context", "combined_validation_context", "default_validation_context",
				"match_typed_subject_alt_names", 0)
			if at(match, "san_type") != want.kind || at(match, "matcher", "exact") != want.name || at(tls, "sni") != want.sni {
				t.Errorf("it must be %v, and is asked for as %v", match, at(tls, "sni"))
			}
			if at(tls, "common_tls_context", "tls_certificate_sds_secret_configs") != nil {
				t.Error("an Envoy without a certificate presents one")
			}
			source := at(tls, "common_tls_context", "combined_validation_context", "validation_context_sds_secret_config",
				"sds_config", "path_config_source")
			path, _ := at(source, "path").(string)
			if err := config.TLS.Write(); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(raw), "BEGIN CERTIFICATE") {
				t.Fatalf("%v %s", err, raw)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 ||
				at(source, "watched_directory", "path") != filepath.Dir(path) {
				t.Errorf("%v %v %v", err, info.Mode(), source)
			}
			if files, err := os.ReadDir(config.TLS.Dir); err != nil || len(files) != 1 {
				t.Errorf("left in the directory that Envoy watches: %v %v", files, err)
			}
		})
	}
}

// TestAskNobody: an xDS server that is not there is waited for as long as the caller says, and no longer.
func TestAskNobody(t *testing.T) {
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	config := least()
	config.XDSServer = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	d, err := bootstrap.AskDrainTime(ctx, config)
	if err == nil || d != 0 {
		t.Fatalf("a server that is not there says %v", d)
	}
	if ctx.Err() == nil {
		t.Errorf("it gave up after %v, before the time that it had: %v", time.Since(began), err)
	}
}

// authorities is an identity without a certificate of its own, which trusts one authority.
func authorities(t *testing.T) *identity.Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true,
		BasicConstraintsValid: true,
		NotBefore:             time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	id, err := identity.Open(identity.Files{CA: path})
	if err != nil {
		t.Fatal(err)
	}
	return id
}
