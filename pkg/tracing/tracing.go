// Package tracing makes OpenTelemetry spans of what a change goes through, and sends them by OTLP over gRPC to what
// OpenTelemetry's standard variables name. Where they name nothing it is off, and costs a look at a flag ([On]).
//
// Most spans are recorded when their work is done ([Span]): the work is done for several at once, or is begun by one
// goroutine and ended by another, so that no context goes with it. What belongs together is found by the traceparent
// (W3C Trace Context), which a commit carries through the event stream.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
)

var (
	on     atomic.Bool
	tracer = otel.Tracer("github.com/marchproxy/marchproxy") // the provider that [Settings.Start] sets, once it is set
	format = propagation.TraceContext{}
)

// On says whether spans are made. Who would have to reckon something for a span asks first.
func On() bool { return on.Load() }

// Now is the time, where spans are made; the zero time otherwise.
func Now() time.Time {
	if !On() {
		return time.Time{}
	}
	return time.Now()
}

// Settings are what the environment says of tracing.
type Settings struct {
	// Endpoint is where spans are sent, a URL; "" is off.
	Endpoint string
}

// samplers are those of OpenTelemetry's specification that the SDK has.
var samplers = []string{
	"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
	"parentbased_traceidratio",
}

// Read reads OpenTelemetry's variables. Those that are not looked at here, such as OTEL_EXPORTER_OTLP_HEADERS, the SDK
// reads by itself.
func Read(e *process.Env, id identity.Settings) Settings {
	endpoint := e.String("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	endpoint = e.String("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
	insecure := e.Bool("OTEL_EXPORTER_OTLP_INSECURE", false)
	if s := e.String("OTEL_TRACES_SAMPLER", "parentbased_always_on"); !slices.Contains(samplers, s) {
		e.Fail("OTEL_TRACES_SAMPLER", "is %q; it must be one of %s", s, strings.Join(samplers, ", "))
	}
	if p := e.String("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"); p != "grpc" && endpoint != "" {
		e.Fail("OTEL_EXPORTER_OTLP_PROTOCOL", "is %q; spans are sent by grpc alone", p)
	}
	exporter := e.String("OTEL_TRACES_EXPORTER", "otlp")
	switch {
	case e.Bool("OTEL_SDK_DISABLED", false), exporter == "none", endpoint == "":
		return Settings{}
	case exporter != "otlp":
		e.Fail("OTEL_TRACES_EXPORTER", "is %q; it must be otlp, or none", exporter)
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		e.Fail("OTEL_EXPORTER_OTLP_ENDPOINT", "is %q; it must be http://host:4317, or https:// with TLS", endpoint)
	} else if (u.Scheme == "http" || insecure) && !id.Plain && !identity.Loopback(u.Hostname()) {
		e.Fail("OTEL_EXPORTER_OTLP_ENDPOINT", "names %s, on another machine, without TLS: use https://, or set "+
			"ALLOW_PLAINTEXT=true where it may "+
			"be read on the way", u.Host)
	}
	return Settings{Endpoint: endpoint}
}

// Start begins to send what service (its kind: marchproxy-api) does; instance is this one's name. Spans that cannot be
// sent are dropped, and the log says why. Stop sends the last ones, for 3 s at most.
func (s Settings) Start(ctx context.Context, service, instance string, log *zap.Logger) (stop func(), err error) {
	if s.Endpoint == "" {
		return func() {}, nil
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	about, err := resource.New(
		ctx, resource.WithAttributes(attribute.String("service.name", service),
			attribute.String("service.instance.id", instance)),
		resource.WithFromEnv(), resource.WithTelemetrySDK(),
	)
	if err != nil {
		return nil, fmt.Errorf("tracing: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans are lost", zap.Error(err)) }))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))
	otel.SetTracerProvider(provider)
	on.Store(true)
	log.Info("sending spans", zap.String("endpoint", s.Endpoint))
	return func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if err := provider.Shutdown(limit); err != nil {
			log.Warn("the last spans are lost", zap.Error(err))
		}
	}, nil
}

// Parent is the span that a traceparent names; one that is not valid where it names none.
func Parent(traceparent string) trace.SpanContext {
	if traceparent == "" {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(format.Extract(context.Background(),
		propagation.MapCarrier{"traceparent": traceparent}))
}

// Traceparent names a span; "" where it is not valid.
func Traceparent(of trace.SpanContext) string {
	if !of.IsValid() {
		return ""
	}
	c := propagation.MapCarrier{}
	format.Inject(trace.ContextWithSpanContext(context.Background(), of), c)
	return c["traceparent"]
}

// Of is the span of a context.
func Of(ctx context.Context) trace.SpanContext { return trace.SpanContextFromContext(ctx) }

// Serve begins the span of a request, which goes on with that of its Traceparent header.
func Serve(r *http.Request, name string, attributes ...attribute.KeyValue) (*http.Request, trace.Span) {
	ctx := format.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attributes...))
	return r.WithContext(ctx), span
}

// Begin begins the span of what no request asked for, at a time before now perhaps: a part of the context's, or a trace
// of its own.
func Begin(
	ctx context.Context, name string, from time.Time, attributes ...attribute.KeyValue,
) (context.Context, trace.Span) {
	return tracer.Start(ctx, name, trace.WithTimestamp(from), trace.WithAttributes(attributes...))
}

// Span records what has been done from one time to another as a part of something else. An error says that it failed.
// Where the whole is not traced nothing is recorded.
func Span(
	whole trace.SpanContext, name string, from, to time.Time, err error, attributes ...attribute.KeyValue,
) trace.SpanContext {
	if !On() || !whole.IsValid() {
		return trace.SpanContext{}
	}
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), whole)
	_, span := tracer.Start(ctx, name, trace.WithTimestamp(from), trace.WithAttributes(attributes...))
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End(trace.WithTimestamp(to))
	return span.SpanContext()
}

// Failed is the error of text; nil where it is "".
func Failed(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

// ID is the field of the log that names the trace of a traceparent; none where there is none.
func ID(traceparent string) zap.Field {
	if p := Parent(traceparent); p.IsValid() {
		return zap.Stringer("trace_id", p.TraceID())
	}
	return zap.Skip()
}
