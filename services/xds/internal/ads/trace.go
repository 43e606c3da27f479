package ads

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/marchproxy/marchproxy/pkg/tracing"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// maxTraces is how many revisions a gateway keeps the spans of, and of how many one response is a part at most: an
// Envoy that comes lacks the revisions of all times, and nobody waits for it.
const (
	maxTraces  = 256
	maxParents = 8
)

// traces are the spans that the last revisions are parts of, where spans are made. They belong to the gateway's lock.
type traces struct {
	by        map[int64]trace.SpanContext
	revisions []int64
}

// Trace says which span a revision is a part of. Call it before [Gateway.Apply].
func (g *Gateway) Trace(revision int64, whole trace.SpanContext) {
	if !whole.IsValid() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t := &g.traces
	if t.by == nil {
		t.by = map[int64]trace.SpanContext{}
	}
	if len(t.revisions) >= maxTraces {
		delete(t.by, t.revisions[0])
		t.revisions = t.revisions[1:]
	}
	t.by[revision], t.revisions = whole, append(t.revisions, revision)
}

// of are the spans that a response is a part of.
func (t *traces) of(r *response) (out []trace.SpanContext) {
	if r == nil || len(t.by) == 0 {
		return nil
	}
	seen := map[int64]bool{}
	for _, it := range r.items {
		if whole, traced := t.by[it.revision]; traced && !seen[it.revision] && len(out) < maxParents {
			seen[it.revision] = true
			out = append(out, whole)
		}
	}
	return out
}

// pushed is a response on its way: the spans of its sending, and when it was sent.
type pushed struct {
	spans []trace.SpanContext
	sent  time.Time
}

// push records that a response was sent, of which it was decided at a time.
func (s *deltaStream) push(r *response, parents []trace.SpanContext, from time.Time) {
	if len(parents) == 0 {
		return
	}
	now := time.Now()
	p := pushed{sent: now}
	for _, whole := range parents {
		p.spans = append(p.spans, tracing.Span(whole, "push "+ShortType(r.typ), from, now, nil,
			attribute.String("marchproxy.proxy", s.id), attribute.String("marchproxy.gateway", s.g.name),
			attribute.Int("marchproxy.resources", len(r.items))))
	}
	if s.pushed == nil {
		s.pushed = map[string]pushed{}
	}
	s.pushed[r.nonce] = p
}

// answered records what the Envoy says to a response that was traced.
func (s *deltaStream) answered(r *discoveryv3.DeltaDiscoveryRequest) {
	p, traced := s.pushed[r.GetResponseNonce()]
	if !traced {
		return
	}
	delete(s.pushed, r.GetResponseNonce())
	name, now := "ack "+ShortType(translate.Type(r.GetTypeUrl())), time.Now()
	if r.GetErrorDetail() != nil {
		name = "nack " + ShortType(translate.Type(r.GetTypeUrl()))
	}
	for _, span := range p.spans {
		tracing.Span(span, name, p.sent, now, tracing.Failed(r.GetErrorDetail().GetMessage()),
			attribute.String("marchproxy.proxy", s.id))
	}
}
