package monitoring

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// span is one that was received, with the service that it is of.
type span struct {
	*tracev1.Span
	service string
}

// collector receives spans as an OpenTelemetry collector does.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	addr string

	mu    sync.Mutex
	spans map[string][]span // by trace, in hex
}

// Export implements [collectorv1.TraceServiceServer].
func (c *collector) Export(
	_ context.Context, r *collectorv1.ExportTraceServiceRequest,
) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.GetResourceSpans() {
		service := ""
		for _, a := range of.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				id := hex.EncodeToString(s.GetTraceId())
				c.spans[id] = append(c.spans[id], span{s, service})
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func collect(t *testing.T) *collector {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: lis.Addr().String(), spans: map[string][]span{}}
	g := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(g, c)
	go func() { _ = g.Serve(lis) }() // until it is stopped
	t.Cleanup(g.Stop)
	return c
}

// of are the spans of a trace, by service and name.
func (c *collector) of(trace string) map[string][]*tracev1.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string][]*tracev1.Span{}
	for _, s := range c.spans[trace] {
		name := s.service + ": " + s.GetName()
		out[name] = append(out[name], s.Span)
	}
	return out
}

// attribute is a text of a span.
func attribute(s *tracev1.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// TestTraceOfAChange: one trace, which goes on with the client's own, holds all parts of a change until its answer, in
// their order, and what each Envoy of the gateway was sent and has answered.
func TestTraceOfAChange(t *testing.T) {
	c := collect(t)
	s := harness.ForTest(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + c.addr, "OTEL_BSP_SCHEDULE_DELAY=100"},
		"--no-demo")
	node := startNode(t, s, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+c.addr, "OTEL_BSP_SCHEDULE_DELAY=100")
	if err := node.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	write := func(path, trace, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.API+path+"?wait=live", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Traceparent", "00-"+trace+"-"+parent+"-01")
		resp, err := s.HTTP().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // the status says it
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("%s: status %d", path, resp.StatusCode)
		}
	}
	write("/v1/routes/one", trace, `{"spec":{"gateways":["default","edge"],"hosts":["one.test"],"direct_response":`+
		`{"status":200,"body":"ok"}}}`)
	const root = "marchproxy-api: PUT /v1/:kind/:name"
	parts := []string{
		root, "marchproxy-api: wait for the turn", "marchproxy-api: decide", "marchproxy-api: transaction",
		"marchproxy-api: relay", "marchproxy-api: publish",
		"marchproxy-api: wait=live", "marchproxy-xds: write down", "marchproxy-xds: build",
		"marchproxy-xds: push ScopedRouteConfiguration", "marchproxy-xds: ack ScopedRouteConfiguration",
	}
	var got map[string][]*tracev1.Span
	harness.Eventually(t, func() string {
		got = c.of(trace)
		for _, p := range parts {
			want := 1
			if strings.Contains(p, "build") || strings.Contains(p, "push") || strings.Contains(p, "ack") {
				want = 2 // gateways, with an Envoy each
			}
			if len(got[p]) < want {
				return fmt.Sprintf("%s is there %d times, want %d; there are %v", p, len(got[p]), want, names(got))
			}
		}
		return ""
	})
	if id := hex.EncodeToString(got[root][0].GetParentSpanId()); id != parent {
		t.Errorf("the request's span is a part of %q, not of the client's", id)
	}
	envoys := map[string]bool{}
	for _, a := range got["marchproxy-xds: ack ScopedRouteConfiguration"] {
		envoys[attribute(a, "marchproxy.proxy")] = true
	}
	if len(envoys) != 2 {
		t.Errorf("these Envoys have answered: %v", envoys)
	}
	whole := got[root][0]
	order := []string{
		"marchproxy-api: decide", "marchproxy-api: transaction", "marchproxy-api: publish",
		"marchproxy-xds: build", "marchproxy-xds: push ScopedRouteConfiguration",
	}
	for i, p := range order {
		for _, x := range got[p] {
			if x.GetStartTimeUnixNano() < whole.GetStartTimeUnixNano() || x.GetEndTimeUnixNano() > whole.GetEndTimeUnixNano() {
				t.Errorf("%s is not within the request", p)
			}
			if i > 0 && x.GetStartTimeUnixNano() < got[order[i-1]][0].GetStartTimeUnixNano() {
				t.Errorf("%s begins before %s", p, order[i-1])
			}
		}
	}

	// A policy for the kernel: what the node has done for it is a part of its trace, and of no other's.
	const limit = "5bf92f3577b34da6a3ce929d0e0e4736"
	write("/v1/rate-limit-policies/fair", limit, `{"spec":{"packets_per_second":100000}}`)
	inTurn := []string{"marchproxy-api: publish", "marchproxy-agent: write down", "marchproxy-agent: enforce"}
	harness.Eventually(t, func() string {
		got = c.of(limit)
		for _, p := range append(inTurn, root) {
			if len(got[p]) != 1 {
				return fmt.Sprintf("%s is there %d times, want once; there are %v", p, len(got[p]), names(got))
			}
		}
		return ""
	})
	for i, p := range inTurn {
		x := got[p][0]
		if x.GetStartTimeUnixNano() < got[root][0].GetStartTimeUnixNano() ||
			x.GetEndTimeUnixNano() > got[root][0].GetEndTimeUnixNano() {
			t.Errorf("%s is not within the request", p)
		}
		if i == 0 {
			continue
		}
		if x.GetStartTimeUnixNano() < got[inTurn[i-1]][0].GetStartTimeUnixNano() {
			t.Errorf("%s begins before %s", p, inTurn[i-1])
		}
		if attribute(x, "marchproxy.node") == "" {
			t.Errorf("%s says no node", p)
		}
	}
	if of := c.of(trace); len(of["marchproxy-agent: enforce"]) > 0 {
		t.Error("a node has enforced something for a route")
	}
}

func names(of map[string][]*tracev1.Span) (out []string) {
	for n := range of {
		out = append(out, n)
	}
	return out
}

// TestTraceOfARequest: Envoy goes on with a client's trace and hands it to the backend, and the collector gets Envoy's
// span of it.
func TestTraceOfARequest(t *testing.T) {
	c := collect(t)
	seen := make(chan string, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case seen <- r.Header.Get("Traceparent"):
		default:
		}
	}))
	t.Cleanup(backend.Close)
	s := harness.ForTest(t, nil, "--no-demo")
	endpoint := func(addr string) []any {
		_, port, _ := net.SplitHostPort(addr)
		return []any{map[string]any{"host": "127.0.0.1", "port": json.Number(port)}}
	}
	s.Want(t, "POST", s.API+"/v1/apply?wait=live", map[string]any{"resources": []any{
		map[string]any{"kind": "Service", "name": "collector", "spec": map[string]any{
			"protocol":  "grpc",
			"endpoints": endpoint(c.addr),
		}},
		map[string]any{
			"kind": "Service", "name": "web",
			"spec": map[string]any{"endpoints": endpoint(backend.Listener.Addr().String())},
		},
		map[string]any{"kind": "Route", "name": "web", "spec": map[string]any{
			"hosts":    []string{"web.test"},
			"backends": []any{map[string]any{"service": "web"}},
		}},
	}}, 200)
	s.Want(t, "PATCH", s.API+"/v1/gateways/default?wait=live", `{"spec":{"tracing":{"service":"collector",`+
		`"percent":100}}}`, 200)
	const trace = "0af7651916cd43dd8448eb211c80319c"
	client := probe.New(s.Proxy)
	defer client.Close()
	if a, _, err := client.Get("web.test", "/", "Traceparent: 00-"+trace+"-b7ad6b7169203331-01"); err != nil ||
		a.Status != 200 {
		t.Fatalf("%+v %v", a, err)
	}
	if handed := <-seen; !strings.HasPrefix(handed, "00-"+trace+"-") || strings.Contains(handed, "b7ad6b7169203331") {
		t.Errorf("the backend gets traceparent %q", handed)
	}
	harness.Eventually(t, func() string {
		if got := c.of(trace); len(got) == 0 {
			return "Envoy has sent no span of the trace"
		}
		return ""
	})
}
