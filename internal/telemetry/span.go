package telemetry

import (
	"context"
	"net/http"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"millrace/internal/fault"
)

// HeaderSize is the length of the record header tp: trace id 16 ‖ span id 8 ‖ flags 1.
const HeaderSize = 25

// headerKey is event.HeaderTrace; this package is a leaf.
const headerKey = "tp"

// Span is one sampled span. A nil Span is one that is not sampled.
type Span struct {
	s      trace.Span
	header []byte
}

// Header is the value of the record header tp for records that this span causes; nil if there is no span.
func (s *Span) Header() []byte {
	if s == nil {
		return nil
	}
	return s.header
}

// Set adds attributes. No personal data, no ids of people or orders.
func (s *Span) Set(attrs ...attribute.KeyValue) {
	if s != nil {
		s.s.SetAttributes(attrs...)
	}
}

// End ends the span; with an error it is marked as failed. Only the kind of the failure is kept, what names it: messages may quote data.
func (s *Span) End(failure string) {
	if s == nil {
		return
	}
	if failure != "" {
		s.s.SetStatus(codes.Error, failure)
	}
	s.s.End()
}

func sampled(s trace.Span) *Span {
	if !s.IsRecording() {
		return nil
	}
	c := s.SpanContext()
	id, span := c.TraceID(), c.SpanID()
	h := make([]byte, 0, HeaderSize)
	h = append(append(append(h, id[:]...), span[:]...), byte(c.TraceFlags()))
	return &Span{s: s, header: h}
}

// Request begins the span of an HTTP request, below the caller's span if its traceparent says so. It ends with EndRequest.
func (t *Tracer) Request(r *http.Request, name string) *Span {
	if t == nil {
		return nil
	}
	ctx := r.Context()
	if t.trust {
		ctx = w3c.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	_, s := t.t.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("http.request.method", r.Method)))
	return sampled(s)
}

// EndRequest ends the span of a request.
func (s *Span) EndRequest(code, accepted, failed int) {
	if s == nil {
		return
	}
	s.Set(attribute.Int("http.response.status_code", code), attribute.Int("millrace.events.accepted", accepted), attribute.Int("millrace.events.failed", failed))
	if code >= http.StatusInternalServerError {
		s.End(http.StatusText(code))
		return
	}
	s.End("")
}

// Failure is what a span may say of an error: its id if it has one.
func Failure(err error) string {
	if err == nil {
		return ""
	}
	if id, ok := fault.IDOf(err); ok {
		return string(id)
	}
	return "failed"
}

// parent reads a record's header tp; false unless it says sampled.
func parent(r *kgo.Record) (trace.SpanContext, bool) {
	for i := range r.Headers {
		h := &r.Headers[i]
		if h.Key != headerKey {
			continue
		}
		if len(h.Value) != HeaderSize || h.Value[24]&1 == 0 {
			return trace.SpanContext{}, false
		}
		c := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled, Remote: true}
		copy(c.TraceID[:], h.Value)
		copy(c.SpanID[:], h.Value[16:])
		s := trace.NewSpanContext(c)
		return s, s.IsValid()
	}
	return trace.SpanContext{}, false
}

// Record begins the span of working on one record; nil unless the record is sampled.
func (t *Tracer) Record(r *kgo.Record, name string) *Span {
	if t == nil {
		return nil
	}
	p, ok := parent(r)
	if !ok {
		return nil
	}
	_, s := t.t.Start(trace.ContextWithSpanContext(context.Background(), p), name, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.system", "kafka"), attribute.String("messaging.destination.name", r.Topic),
		attribute.Int("messaging.destination.partition.id", int(r.Partition)), attribute.Int64("messaging.kafka.offset", r.Offset),
	))
	return sampled(s)
}

// Headers is the record's headers with tp being the span's: a new slice, the record's own is not changed.
func (s *Span) Headers(hs []kgo.RecordHeader) []kgo.RecordHeader {
	if s == nil {
		return hs
	}
	out := make([]kgo.RecordHeader, len(hs))
	copy(out, hs)
	for i := range out {
		if out[i].Key == headerKey {
			out[i].Value = s.header
		}
	}
	return out
}

// maxLinks is how many sampled records a batch names; the protocol's default limit.
const maxLinks = 128

// Links gathers the sampled records of a batch that is still growing.
type Links struct{ links []trace.Link }

// Add notes a record of the batch.
func (t *Tracer) Add(l *Links, r *kgo.Record) {
	if t == nil || len(l.links) >= maxLinks {
		return
	}
	if p, ok := parent(r); ok {
		l.links = append(l.links, trace.Link{SpanContext: p})
	}
}

// Batch begins the span of storing a batch, linked to its sampled records; without any (l may be nil) the sampling ratio decides.
func (t *Tracer) Batch(l *Links, name string, attrs ...attribute.KeyValue) *Span {
	if t == nil {
		return nil
	}
	opts := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attrs...)}
	if l != nil {
		opts = append(opts, trace.WithLinks(l.links...))
	}
	_, s := t.t.Start(context.Background(), name, opts...)
	return sampled(s)
}

// BatchOf is Batch for records that are at hand.
func (t *Tracer) BatchOf(rs []*kgo.Record, name string, attrs ...attribute.KeyValue) *Span {
	if t == nil {
		return nil
	}
	var l Links
	for _, r := range rs {
		t.Add(&l, r)
	}
	return t.Batch(&l, name, attrs...)
}
