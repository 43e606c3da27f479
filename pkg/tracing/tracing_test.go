package tracing_test

import (
	"context"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/tracing"
)

// TestOffCostsNothing: without a receiver nothing is allocated, whatever is asked.
func TestOffCostsNothing(t *testing.T) {
	whole := tracing.Parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		if tracing.On() {
			t.Error("it is on")
		}
		tracing.Span(whole, "work", now, now, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkOff is what a place costs that would record a span.
func BenchmarkOff(b *testing.B) {
	for b.Loop() {
		if tracing.On() {
			b.Fatal("it is on")
		}
	}
}

func TestTraceparent(t *testing.T) {
	const text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	if got := tracing.Traceparent(tracing.Parent(text)); got != text {
		t.Errorf("%q comes back as %q", text, got)
	}
	for _, wrong := range []string{"", "x", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", text[:54]} {
		if tracing.Parent(wrong).IsValid() {
			t.Errorf("%q is taken", wrong)
		}
	}
	if got := tracing.Traceparent(trace.SpanContext{}); got != "" {
		t.Errorf("no span is %q", got)
	}
	if tracing.Of(context.Background()).IsValid() {
		t.Error("an empty context has a span")
	}
}

// TestSettings: what OpenTelemetry's variables may say.
func TestSettings(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		want string // the endpoint
		fail bool
	}{
		{"nothing", nil, "", false},
		{
			"this machine",
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"},
			"http://127.0.0.1:4317", false,
		},
		{"for traces", map[string]string{
			"OTEL_EXPORTER_OTLP_ENDPOINT":        "http://127.0.0.1:1",
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:2",
		}, "http://localhost:2", false},
		{"another machine", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, "", true},
		{
			"another machine by TLS",
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4317"},
			"https://collector:4317", false,
		},
		{
			"in the open",
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "ALLOW_PLAINTEXT": "true"},
			"http://collector:4317", false,
		},
		{
			"off",
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
			"", false,
		},
		{
			"none",
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
			"", false,
		},
		{"no URL", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4317"}, "", true},
		{"HTTP", map[string]string{
			"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
			"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		}, "", true},
		{"unknown sampler", map[string]string{"OTEL_TRACES_SAMPLER": "sometimes"}, "", true},
	} {
		e := process.NewEnv(func(name string) (string, bool) { v, ok := c.env[name]; return v, ok })
		got := tracing.Read(e, identity.Read(e))
		if err := e.Err(); (err != nil) != c.fail || (!c.fail && got.Endpoint != c.want) {
			t.Errorf("%s: %q, %v", c.name, got.Endpoint, err)
		}
	}
}
