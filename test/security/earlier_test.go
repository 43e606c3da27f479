package security

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/harness"
)

// TestEarlierListeners: connections that came through a listener from before the host filter was made of Envoy's own
// filters, which takes nothing but a script in its place, meet the same definition of a host, and what hosts demand,
// until they have drained.
func TestEarlierListeners(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	ports, err := porttest.Take(3)
	if err != nil {
		t.Fatal(err)
	}
	p := &perimeter{t: t, s: s}
	const key = "a-key-of-the-gateway-earlier"
	sum := sha256.Sum256([]byte(perimeterToken))
	type object = map[string]any
	route := func(name string, spec object, hosts ...string) object {
		spec["hosts"], spec["gateways"], spec["direct_response"] = hosts, []string{"earlier"}, object{"status": 200}
		return object{"kind": "Route", "name": name, "spec": spec}
	}
	p.apply(
		object{
			"kind": "AuthPolicy", "name": "staff",
			"spec": object{"tokens": []object{{"name": "t", "sha256": hex.EncodeToString(sum[:])}}},
		},
		object{"kind": "Gateway", "name": "earlier", "spec": object{
			"listeners": []object{{"name": "http", "port": ports[0]}}, "api_keys": []object{{"name": "k", "key": key}},
		}},
		route("exact", object{"auth_policy": "staff"}, "exact.example.com", "*.wild.example.com"),
		route("default", object{}, "*"),
	)

	raw, err := bootstrap.Render(bootstrap.Config{
		NodeID: "earlier", Gateway: "earlier", XDSServer: s.GRPC, APIKey: key, AdminAddr: net.JoinHostPort("127.0.0.1",
			strconv.Itoa(ports[1])),
	})
	if err != nil {
		t.Fatal(err)
	}
	var boot object
	if err := json.Unmarshal(raw, &boot); err != nil {
		t.Fatal(err)
	}
	listener, err := protojson.Marshal(earlierListener(t, ports[2]))
	if err != nil {
		t.Fatal(err)
	}
	boot["static_resources"].(object)["listeners"] = []any{json.RawMessage(listener)}
	beginEnvoy(t, boot)

	d := door{name: "an earlier listener", addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[2]))}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", d.addr); err == nil {
			_ = c.Close() // it was only to see
			if p.ask(d, "other.test", "/").status == 200 {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatal("the default route is not served")
		}
	}
	for _, host := range []string{"exact.example.com", "x.wild.example.com"} {
		for _, f := range canonicalForms {
			want := 401
			if strings.HasPrefix(f, "MIXED") && strings.HasPrefix(host, "x.") {
				want = 421 // it has a table of its own, or goes elsewhere
			}
			p.want(d, form(f, host), "/", want)
		}
		for _, f := range oddForms {
			p.want(d, form(f, host), "/", 400)
		}
	}
	for _, host := range []string{"other.test", "[::1]", "[::1]:80"} {
		p.want(d, host, "/", 200)
	}
}

// earlierListener is the listener http with the place that the host filter had.
func earlierListener(t *testing.T, port int) *listenerv3.Listener {
	t.Helper()
	o, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: "earlier"}, &configv1.Gateway{
		Listeners: []*configv1.Listener{{Name: "http", Port: uint32(port), Address: "127.0.0.1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	st := config.New()
	st.Apply([]*resource.Object{o})
	b := translate.NewBuilder("earlier", translate.Options{})
	made, _ := b.Rebuild(st)
	i := slices.IndexFunc(made.Upserts, func(r *translate.Resource) bool { return r.Type == translate.TypeListener })
	l, h := &listenerv3.Listener{}, &hcmv3.HttpConnectionManager{}
	if err := made.Upserts[i].Body.UnmarshalTo(l); err != nil {
		t.Fatal(err)
	}
	filters := l.GetFilterChains()[0].GetFilters()
	last := filters[len(filters)-1]
	if err := last.GetTypedConfig().UnmarshalTo(h); err != nil {
		t.Fatal(err)
	}
	for _, f := range h.GetHttpFilters() {
		if f.GetName() == "marchproxy.authority" {
			f.Name = "marchproxy.host"
			f.GetConfigDiscovery().TypeUrls = []string{typeURL(t, &faultv3.HTTPFault{}), typeURL(t, &luav3.Lua{})}
		}
	}
	l.Name, l.Metadata = "earlier", &corev3.Metadata{}
	last.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: anyOf(t, h)}
	return l
}

func anyOf(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func typeURL(t *testing.T, m proto.Message) string { t.Helper(); return anyOf(t, m).GetTypeUrl() }
