package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/floor"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/measure"
	"github.com/marchproxy/marchproxy/test/probe"
)

// withoutTail takes the tail's logger out of a listener.
func withoutTail(t *testing.T, r *translate.Resource) *translate.Resource {
	t.Helper()
	var l listenerv3.Listener
	if err := r.Body.UnmarshalTo(&l); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, c := range l.GetFilterChains() {
		for _, f := range c.GetFilters() {
			var m hcmv3.HttpConnectionManager
			if !f.GetTypedConfig().MessageIs(&m) {
				continue
			}
			if err := f.GetTypedConfig().UnmarshalTo(&m); err != nil {
				t.Fatal(err)
			}
			n := len(m.GetAccessLog())
			m.AccessLog = slices.DeleteFunc(m.AccessLog, func(a *accesslogv3.AccessLog) bool {
				return a.GetName() == bootstrap.RuntimeTail
			})
			found += n - len(m.GetAccessLog())
			packed, err := anypb.New(&m)
			if err != nil {
				t.Fatal(err)
			}
			f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed}
		}
	}
	if found != 1 {
		t.Fatalf("a listener has the logger %d times", found)
	}
	body, err := anypb.New(&l)
	if err != nil {
		t.Fatal(err)
	}
	out := *r
	out.Body, out.Version = body, translate.VersionOf(body.GetValue())
	return &out
}

// alone is an Envoy with listeners that answer by themselves, and no system.
type alone struct {
	envoy *floor.Envoy
	probe *probe.Conn
	admin envoyadmin.Admin
}

func startAlone(t *testing.T, listeners int, tail bool) alone {
	t.Helper()
	ports, err := porttest.Take(listeners + 1)
	if err != nil {
		t.Fatal(err)
	}
	gw := &configv1.Gateway{}
	for i, p := range ports[1:] {
		gw.Listeners = append(gw.Listeners, &configv1.Listener{Name: fmt.Sprintf("l-%d", i), Port: uint32(p)})
	}
	st := config.New()
	gateway, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}, gw)
	if err != nil {
		t.Fatal(err)
	}
	route, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: "a"}, &configv1.Route{
		Hosts: []string{"a.example.com"}, DirectResponse: &configv1.DirectResponse{Status: 200, Body: "a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	st.Apply([]*resource.Object{gateway, route})
	b := translate.NewBuilder(resource.DefaultGateway, translate.Options{})
	b.Rebuild(st)
	var all []*translate.Resource
	for r := range b.All() {
		if !tail && r.Type == translate.TypeListener {
			r = withoutTail(t, r)
		}
		all = append(all, r)
	}
	server, err := floor.NewServer(all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	path, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	admin := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	e, err := floor.StartEnvoy(t.Context(), path, server.Addr(), admin, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	out := alone{e, probe.New(net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1]))), envoyadmin.New(admin)}
	t.Cleanup(out.probe.Close)
	eventually(t, func() string {
		if a, _, err := out.probe.Get("a.example.com", "/"); err != nil || a.Status != 200 {
			return fmt.Sprintf("%+v %v", a, err)
		}
		code, raw, err := out.admin.Do(t.Context(), "GET", "/stats?filter=^listener_manager.total_listeners_active$")
		want := fmt.Sprintf("listener_manager.total_listeners_active: %d\n", listeners)
		if err != nil || code != 200 || string(raw) != want {
			return fmt.Sprintf("%d %s %v", code, raw, err)
		}
		return ""
	})
	return out
}

// memory is what the Envoy has allocated, in bytes.
func (a alone) memory(t *testing.T) int64 {
	t.Helper()
	_, raw, err := a.admin.Do(t.Context(), "GET", "/memory")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Allocated string `json:"allocated"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(doc.Allocated, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSleepingTail: the logger of those who watch costs little while nobody does: of CPU a request, beside an Envoy that
// has no such logger, and of memory a listener.
func TestSleepingTail(t *testing.T) {
	const listeners, rounds, requests = 50, 15, 1000
	with, without := startAlone(t, listeners, true), startAlone(t, listeners, false)
	if n := (with.memory(t) - without.memory(t)) / listeners; n > 64<<10 {
		t.Errorf("the logger takes %d bytes a listener", n)
	} else {
		t.Logf("the logger takes %d bytes a listener", n)
	}
	round := func(a alone) float64 {
		before, err := measure.CPU(a.envoy.Pid())
		if err != nil {
			t.Fatal(err)
		}
		for range requests {
			if got, _, err := a.probe.Get("a.example.com", "/"); err != nil || got.Status != 200 {
				t.Fatalf("%+v %v", got, err)
			}
		}
		after, err := measure.CPU(a.envoy.Pid())
		if err != nil {
			t.Fatal(err)
		}
		return float64(after-before) / requests / 1000
	}
	var a, b []float64
	for i := range rounds {
		if i%2 == 0 {
			a, b = append(a, round(with)), append(b, round(without))
		} else {
			y, x := round(without), round(with)
			a, b = append(a, x), append(b, y)
		}
	}
	mid, low, high := measure.Paired(a, b, func(x, y float64) float64 { return x / y })
	diff, _, _ := measure.Paired(a, b, func(x, y float64) float64 { return x - y })
	t.Logf("CPU a request: %.1f µs with the logger asleep, %.1f without one; %+.2f µs, ratio %.3f (%.3f to %.3f)",
		measure.Median(a), measure.Median(b), diff, mid, low, high)
	if low > 1.1 {
		t.Errorf("the logger that sleeps makes a request %.2f times as dear", mid)
	}
}
